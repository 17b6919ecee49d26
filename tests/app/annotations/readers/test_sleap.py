"""SLEAP's projects; sleap-io is no part of the tests' environment."""

from pathlib import Path

import numpy as np
import pytest
from drawn_sets import draw

from icconv_mm.app.annotations.find import read_datasets

sleap_io = pytest.importorskip('sleap_io')


def test_frames_without_animals(tmp_path):
    """A frame marked as negative is an image without objects; hidden instances and unmarked frames are told."""
    files = [str(tmp_path / f'{i}.png') for i in range(5)]
    for file in files:
        draw(tmp_path, Path(file).name, size=(40, 30))
    skeleton = sleap_io.Skeleton(['nose', 'tail'], edges=[('nose', 'tail')])
    video = sleap_io.Video.from_filename(files)
    seen, hidden = np.array([[5.0, 5.0], [20.0, 9.0]]), np.full((2, 2), np.nan)
    of_frames = [[seen], [seen + 1, hidden], [hidden], [], []]
    frames = [
        sleap_io.LabeledFrame(
            video=video,
            frame_idx=i,
            instances=[sleap_io.Instance.from_numpy(points, skeleton=skeleton) for points in instances],
            is_negative=i == 3,
        )
        for i, instances in enumerate(of_frames)
    ]
    sleap_io.Labels(labeled_frames=frames, videos=[video], skeletons=[skeleton]).save(str(tmp_path / 'mice.slp'))
    (dataset,) = read_datasets(tmp_path)
    counts = {image.path.name: len(image.annotations) for image in dataset}
    assert counts == {'0.png': 1, '1.png': 1, '2.png': 0, '3.png': 0}
    assert [what for _, what in dataset.warnings] == [
        '2 instances have no visible point: left out',
        '1 frames have no instance and no mark as negative: not read',
    ]
