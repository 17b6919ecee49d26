"""What a run says of itself when it ends."""

import json

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from PIL import Image

from icconv_mm.runner import results


def log(folder, name, places):
    file = folder / name / 'vis_data/scalars.json'
    file.parent.mkdir(parents=True)
    entries = [{'lr': 0.1, 'loss': float(place), 'iter': place, 'step': place} for place in places]
    file.write_text('\n'.join(map(json.dumps, [*entries, {'acc': 1.0, 'step': places[-1]}])))


@pytest.mark.parametrize(
    ('second', 'shown'),
    [
        ((10, 20), {10: 10.0, 20: 20.0}),  # begun anew
        ((30, 40), {10: 10.0, 20: 20.0, 30: 30.0, 40: 40.0}),  # resumed
    ],
)
def test_curves_are_those_of_the_last_run(tmp_path, monkeypatch, second, shown):
    matplotlib = pytest.importorskip('matplotlib')
    log(tmp_path, '1', (10, 20, 30, 40, 50))
    log(tmp_path, '2', second)
    drawn = {}
    monkeypatch.setattr(
        matplotlib.axes.Axes, 'plot', lambda axis, *points, label, **_: drawn.update({label: dict(zip(*points))})
    )
    monkeypatch.setattr(matplotlib.axes.Axes, 'legend', lambda axis, **_: None)
    results.draw_curves(tmp_path)
    assert drawn['loss'] == shown and set(drawn['acc']) == {second[-1]}


def test_label_maps_of_large_pictures(tmp_path):
    """The map of a picture that was read reduced is compared with the labels of the whole."""
    labels = np.zeros((80, 120), np.uint8)
    labels[:, 60:] = 1
    Image.fromarray(labels).save(tmp_path / 'a.png')
    sample = type('Sample', (), {'pred_sem_seg': PixelData(data=torch.from_numpy(labels[::2, ::2].copy())[None])})
    confusion = np.zeros((2, 2), int)
    assert results._compare_maps(None, tmp_path / 'a.png', sample, confusion) == 1.0
    assert confusion.tolist() == [[4800, 0], [0, 4800]]
