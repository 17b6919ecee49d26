"""What the library says of its arguments, a tool says of its options."""

import pytest

from icconv_mm.apis import cli
from icconv_mm.apis.inference import Predictor
from icconv_mm.errors import ArgumentError, InputError


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (ArgumentError('batch_size: expected 1 or more, got 0'), '--batch-size: expected 1 or more, got 0'),
        (ArgumentError('ann_file a_b.json: no image'), '--ann-file a_b.json: no image'),
        (ArgumentError('tta needs tta_model'), '--tta needs tta_model'),
        (ArgumentError('options model.depht: no such key'), '--cfg-options model.depht: no such key'),
        (ArgumentError('c.py: out: expected a name'), 'c.py: out: expected a name'),  # of a part of a config
        (InputError('checkpoint: no such file: a_b.pth'), 'checkpoint: no such file: a_b.pth'),  # no option
    ],
    ids=str,
)
def test_arguments_are_named_as_options(error, said):
    with pytest.raises(SystemExit) as end, cli.reporting(after='Nothing was written.'):
        raise error
    assert str(end.value) == f'error: {said}\nNothing was written.'


@pytest.mark.parametrize('method', [Predictor.predict, Predictor.try_predict])
def test_the_library_names_its_arguments(method):
    with pytest.raises(ArgumentError, match=r'^batch_size: expected 1 or more, got 0$'):
        next(method(None, ['a.jpg'], batch_size=0))
