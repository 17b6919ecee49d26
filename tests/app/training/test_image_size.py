"""The size that a time chooses."""

import re
from math import prod

import labelled
import numpy as np
import pytest

from icconv_mm.app.training import image_size, memory
from icconv_mm.app.training.budget import Budget
from icconv_mm.app.training.image_size import size_in_time
from icconv_mm.app.training.own_data import config_for

SIZES, LARGE = np.array([[800, 600]] * 9), np.full((9, 2), 0.3)
PIXEL = 0.05 / 192**2  # seconds


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(memory, 'training_times', lambda network, *shapes: [PIXEL * prod(shape) for shape in shapes])


def chosen(minutes, boxes=LARGE, task='detection'):
    return size_in_time({}, SIZES, boxes, task, 60 * minutes)


def test_the_longer_the_time_the_larger_the_images(fast):
    sizes = [chosen(minutes)[0] for minutes in (1, 8, 30, 600)]
    assert sizes == sorted(sizes) and sizes[0] == 192 and sizes[-1] == 640
    assert 192 < sizes[1] < sizes[2] < 640


def test_it_says_how_much_time_the_usual_size_needs(fast):
    reason = chosen(8)[1]
    minutes = int(re.fullmatch(r'; --size 640 would need about (\d+) minutes', reason)[1])
    assert chosen(minutes + 1) == (640, '') and chosen(minutes - 1)[0] < 640


def test_small_objects_keep_their_pixels(fast):
    """Objects of a fortieth of a side have 16 pixels in 640; a few that are smaller do not count."""
    assert chosen(1, np.full((9, 2), 1 / 40))[0] == 640
    assert chosen(1, np.full((9, 2), 1 / 16))[0] == 256
    assert chosen(1, np.concatenate([np.full((9, 2), 0.3), np.full((2, 2), 1 / 40)]))[0] == 192


def test_where_it_was_not_measured_it_chooses_nothing(fast, monkeypatch):
    assert chosen(1, task='semantic') == (None, '')
    monkeypatch.setattr(memory, 'training_times', lambda network, *shapes: None)  # on a GPU
    assert chosen(1) == (None, '')


def test_a_written_config_has_it(fast, tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.setattr(image_size, '_SIDES', (416, 640))  # the drawn images are small
    data, lines = labelled.voc(tmp_path / 'data'), []
    options = dict(backbone='small', pretrained='none', say=lines.append)
    cfg = config_for(data, epochs=Budget('1m', clock=lambda: 0.0), work_dir=tmp_path / 'run', **options)
    assert cfg.size == 192 and '; --size 416 would need about ' in lines[-1]
    given = config_for(data, size=320, epochs=Budget('1m', clock=lambda: 0.0), work_dir=tmp_path / 'given', **options)
    assert given.size == 320
