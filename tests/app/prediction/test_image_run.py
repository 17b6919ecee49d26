"""Many images are predicted; one that fails costs no other."""

from pathlib import Path

import numpy as np
import pytest

from icconv_mm.app.prediction import checkpoint
from icconv_mm.app.prediction.image_run import FailedImagesError
from icconv_mm.app.prediction.predict import infer
from icconv_mm_runtime.results import Result


@pytest.mark.parametrize('workers', [0, 2])
def test_an_image_that_cannot_be_drawn_costs_no_other(tmp_path, monkeypatch, workers):
    class BrokenResult(Result):
        def plot(self, score_thr):
            if Path(self.path).stem == 'b':
                raise ValueError('too thin')
            return self.image

    class Network:
        settings, descriptions = '', {'': {'kind': 'classification', 'classes': ('a',)}}

        def __init__(self, *_):
            pass

        def read(self, image):
            return image, None

        def run_batch(self, batch):
            return batch

        def result(self, image, sample, longest):
            return BrokenResult(str(sample), np.zeros((8, 9, 3), np.uint8), {'': {'scores': np.ones(1)}})

    for name in 'abc':
        (tmp_path / f'{name}.png').touch()
    monkeypatch.setattr(checkpoint, 'Predictor', Network)
    with pytest.raises(FailedImagesError, match=r'1 of 3 images failed.*\n.*b\.png: too thin'):
        infer(None, 'net.pth', str(tmp_path), str(tmp_path / 'out'), workers=workers)
    assert sorted(path.name for path in (tmp_path / 'out' / 'vis').iterdir()) == ['a.png', 'c.png']
    assert '"id": 2' not in (tmp_path / 'out' / 'images.json').read_text()
