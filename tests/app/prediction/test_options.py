"""The options of a prediction are checked where they are made, before anything is read."""

import inspect
from dataclasses import fields

import pytest

pytest.importorskip('mmengine')

from icconv_mm.app.prediction.options import Options
from icconv_mm.app.prediction.predict import infer
from icconv_mm.errors import ArgumentError

DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(infer).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
}


def options(**given):
    return Options('net.pth', **(DEFAULTS | given))


def test_options_are_the_arguments_of_a_prediction_in_its_order():
    """``apis.infer`` hands them over by their positions."""
    assert [field.name for field in fields(Options)] == ['checkpoint', *DEFAULTS]


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (dict(score_thr=1.5), 'score_thr: expected a score from 0 to 1'),
        (dict(json_score_thr=-1), 'json_score_thr: expected a score from 0 to 1'),
        (dict(batch_size=0), 'batch_size: expected 1 or more, got 0'),
        (dict(batch_size='a'), 'batch_size: expected 1 or more, got a'),
        (dict(tile=31), 'tile: expected 32 pixels or more, got 31'),
    ],
    ids=str,
)
def test_values_that_cannot_be_used(given, message):
    with pytest.raises(ArgumentError, match=f'^{message}'):
        options(**given)


@pytest.mark.parametrize('name', ['ann_file', 'tile', 'to', 'shard', 'pick', 'resume'])
def test_options_of_images_are_refused_for_a_video(name):
    value = {'tile': 64, 'shard': (1, 2), 'pick': 1, 'resume': True}.get(name, 'coco')
    given = options(**{name: value})
    given.check_for('a.jpg', is_video=False)
    with pytest.raises(ArgumentError, match=f'^{name}: is for images, not for a video'):
        given.check_for('a.mp4', is_video=True)


def test_tracks_are_refused_for_images():
    options(track=True).check_for('a.mp4', is_video=True)
    with pytest.raises(ArgumentError, match=r'^track: is for a video, which a\.jpg is not'):
        options(track=True).check_for('a.jpg', is_video=False)
