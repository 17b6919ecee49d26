"""Numbers of the objects of a video."""

import sys

import numpy as np
import pytest

pytest.importorskip('trackers')
pytest.importorskip('mmengine')

from icconv_mm.app.prediction.tracking import Tracker
from icconv_mm.errors import MissingLibraryError

CELLS = {'classes': ('cell', 'nucleus')}


def frame(*objects):
    """Arrays of objects, each the centre x, the score and the label of a square of 40 pixels."""
    centers, scores, labels = (np.array(values) for values in zip(*objects)) if objects else (np.zeros(0),) * 3
    boxes = np.stack([centers - 20, np.full(len(centers), 30.0), centers + 20, np.full(len(centers), 70.0)], -1)
    return {'boxes': boxes, 'scores': scores.astype(float), 'labels': labels.astype(int)}


def tracks_of(frames, **options):
    tracker = Tracker(options.pop('task', CELLS), options.pop('rate', 30), **options)
    return [tracker.update(objects).tolist() for objects in frames]


def test_objects_that_pass_each_other_keep_their_numbers():
    """In every frame in another order; an object has no number in its first frame."""
    moving = [[(50 + 5 * n, 0.9, 0), (250 - 5 * n, 0.8, 1)] for n in range(40)]
    first, *rest = tracks_of([frame(*objects[:: 1 if n % 2 else -1]) for n, objects in enumerate(moving)])
    assert first == [0, 0]
    assert rest == [[1, 2] if n % 2 else [2, 1] for n in range(1, 40)]


def test_a_hidden_object_keeps_its_number_for_a_second():
    seen = frame((100, 0.9, 0))
    for pause, number in ((20, 1), (40, 2)):
        tracks = tracks_of([*[seen] * 5, *[frame()] * pause, *[seen] * 3])
        assert tracks[4] == [1] and tracks[5] == [] and tracks[-1] == [number]
    assert tracks_of([*[seen] * 5, *[frame()] * 20, *[seen] * 3], rate=10)[-1] == [2]


@pytest.mark.parametrize(
    ('score', 'options', 'expected'),
    [
        (0.45, {}, 1),
        (0.25, {}, 0),
        (0.45, {'task': {**CELLS, 'thresholds': [0.5, None]}}, 0),
        (0.55, {'task': {**CELLS, 'thresholds': [0.5, None]}}, 1),
        (0.25, {'score_thr': 0.2}, 1),
    ],
    ids=str,
)
def test_what_is_drawn_begins_a_track(score, options, expected):
    assert tracks_of([frame((100, score, 0))] * 3, **options)[-1] == [expected]


@pytest.mark.parametrize(('score', 'number'), [(0.15, 1), (0.05, 0)])
def test_a_track_goes_on_with_a_lower_score_but_not_with_noise(score, number):
    assert tracks_of([*[frame((100, 0.9, 0))] * 3, *[frame((100, score, 0))] * 3])[-1] == [number]


def test_a_lost_track_does_not_go_on_with_a_box_beside_a_better_one():
    """A soft suppression leaves them."""
    both = [frame((100, 0.9, 0), (150, 0.9, 0))] * 4
    tracks = tracks_of([*both, *[frame((100, 0.9, 0), (112, 0.2, 0))] * 4])
    assert tracks[3] == [1, 2] and tracks[-1] == [1, 0]


def test_trackers_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, 'trackers', None)
    monkeypatch.setattr('icconv_mm.app.prediction.tracking.is_installed', lambda _: False)
    with pytest.raises(MissingLibraryError, match='track needs trackers: pip install trackers'):
        Tracker(CELLS, 30)
