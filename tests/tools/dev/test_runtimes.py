"""The table of runtimes, and the runtimes that are installed here."""

from importlib import metadata

import numpy as np
import pytest
from skips import EXPORTS

import runtimes


def test_differences_are_relative_to_the_largest_output():
    reference = {'a': np.array([1.0, -4.0]), 'b': np.array([[2.0]])}
    assert runtimes.difference(reference, [reference['a'], reference['b'] + 0.5]) == 0.25
    assert runtimes.difference(reference, {'b': reference['b'], 'a': reference['a'] + 1}) == 0.25
    assert runtimes.difference(reference, [reference['a'] + np.nan, reference['b']]) == np.inf
    assert runtimes.difference(reference, [reference['a'], np.ones(1)]) == 'the output b has the shape [1], not [1, 1]'
    with pytest.raises(ValueError):
        runtimes.difference(reference, [reference['a']])


def test_boxes_of_equal_scores_may_change_places():
    reference = {
        'a.boxes': np.arange(12.0).reshape(1, 3, 4),
        'a.scores': np.array([[0.5, 0.5, 0.1]]),
        'b': np.arange(3.0),
    }
    outputs = {name: value[:, [1, 0, 2]] if name != 'b' else value for name, value in reference.items()}
    assert runtimes.difference(reference, outputs) == 0
    assert runtimes.difference(reference, {**outputs, 'b': reference['b'][[1, 0, 2]]}) == 0.5
    assert runtimes.difference(reference, {**outputs, 'a.boxes': reference['a.boxes']}) == 0
    assert runtimes.difference(reference, {**outputs, 'a.scores': outputs['a.scores'] * [1, 1, 2]}) == 0.2


def test_a_row_has_figures_and_numbers_of_messages():
    cells = {'IC-ResNet': 2.6e-7, 'FPN': 'no Resize', 'AE': 0.0, 'RTMO': 'no Resize', 'all tasks': runtimes.CONVERTS}
    lines = runtimes.tables([{'runtime': 'A', 'version': '1', 'cells': {'free': cells}}]).splitlines()
    assert '| A 1 | 3e-7 |  | (1) |  | 0 | (1) |  |  | converts |' in lines
    assert lines[-1] == '1. no Resize'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """The files of a small segmentor, and its outputs in torch."""
    for name in ('mmseg', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name)
    if not EXPORTS:
        pytest.skip('this torch is too old for exports')
    folder = tmp_path_factory.mktemp('runtimes')
    runtimes.make(folder, ['PyConvSegNet'])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'form'),
    [(name, form) for name in runtimes.RUNTIMES for form in runtimes.FORMS if form in runtimes.forms_of(name)],
)
def test_a_segmentor_in_every_runtime_that_is_installed(files, name, form):
    try:
        runtimes.version_of(name)
    except (metadata.PackageNotFoundError, FileNotFoundError) as error:
        pytest.skip(f"could not import '{name}' ({error})")
    outcome = runtimes.outcome(files, name, form, 'PyConvSegNet')
    assert outcome == runtimes.CONVERTS or outcome < 1e-5, outcome
