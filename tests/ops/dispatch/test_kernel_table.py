"""The table of measured kernels: reading, ranges, and what calls make of it; needs no GPU."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch

from icconv_mm.errors import InputError
from icconv_mm.ops import explain, use_kernel
from icconv_mm.ops.dispatch import backend, kernel_table, proven_gpus
from icconv_mm.ops.dispatch.kernel_table import Measured, find, load

HOPPER = (9, 0)
ENDS = 'kernel', 'compiled'  # of the names of operators of the library
PATTERN = (42, 1, 1, 12, 2, 2, 10, 4, 1)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table of its own: a function that writes measurements into it."""
    path = tmp_path / 'table.json'
    if reason := backend.missing_library():
        pytest.skip(reason)
    monkeypatch.setattr(kernel_table, 'PATH', path)
    monkeypatch.setattr(proven_gpus, 'capability', lambda device: HOPPER)

    def fill(*measured):
        path.write_text(json.dumps({'entries': [asdict(each) for each in measured]}))
        kernel_table.install()

    yield fill
    monkeypatch.undo()
    kernel_table.install()


def measured(pixels=1000, operator='inception_conv2d', **microseconds) -> Measured:
    return Measured(operator, '9.0', 'bfloat16', 64, 64, 1, 1, pixels, microseconds or {'kn2row': 1.0, 'tiled': 2.0})


def ask(pixels, operator='inception_conv2d', **other):
    call = dict(dtype=torch.bfloat16, group_in=64, group_out=64, groups=1, stride=1) | other
    return find(operator, HOPPER, pixels=pixels, **call)


def tensor(*shape, dtype=torch.bfloat16):
    size = torch.empty((), dtype=dtype).element_size()
    return SimpleNamespace(shape=shape, dtype=dtype, device=torch.device('cuda:0'), element_size=lambda: size)


def test_the_committed_table_holds_what_ran_on_a_card():
    """Nothing but the kernels that were measured there is chosen by it."""
    entries = load()
    assert entries and {entry.kernel for entry in entries} == {'tiled'}
    assert {entry.source for entry in entries} == {'docs/measurements/2026-11-20-h200.md'}
    assert {entry.architecture for entry in entries} == {'9.0'}


def test_an_entry_holds_from_half_to_twice_its_pixels(table):
    table(measured(1000))
    assert [ask(pixels) for pixels in (499, 500, 1000, 2000, 2001)] == [None, 'kn2row', 'kn2row', 'kn2row', None]


def test_neighbors_meet_in_the_middle(table):
    table(measured(1000), measured(2000, tiled=1.0, kn2row=3.0))
    assert [ask(pixels) for pixels in (500, 1414, 1415, 4000)] == ['kn2row', 'kn2row', 'tiled', 'tiled']


@pytest.mark.parametrize(
    'other',
    [{'dtype': torch.float16}, {'group_in': 32}, {'groups': 2}, {'stride': 2}, {'operator': 'pyconv2d'}],
    ids=str,
)
def test_other_classes_have_no_entry(table, other):
    table(measured())
    assert ask(1000) == 'kn2row'
    assert ask(1000, **other) is None
    assert find('inception_conv2d', (8, 0), torch.bfloat16, 64, 64, 1, 1, 1000) is None


def test_a_broken_table_says_where(tmp_path):
    path = tmp_path / 'table.json'
    path.write_text('{')
    with pytest.raises(InputError, match=r'table\.json is no table of kernels'):
        load(path)
    entry = json.loads(kernel_table.PATH.read_text())['entries'][0]
    path.write_text(json.dumps({'entries': [entry, entry | {'microseconds': {'dense': 1.0}}]}))
    with pytest.raises(InputError, match=r"entry 1: .*'dense'"):
        load(path)


def test_calls_follow_the_table(table, choice):
    """An entry admits a call, or sends it to the reference; without one the former rules hold."""
    limits = choice.operators['inception_conv2d']['cuda'].limits
    call = tensor(1, 64, 20, 50), tensor(64, 64, 3, 3), None, PATTERN, 1, 1
    table()
    assert limits.objection(*call) is None
    table(measured(1000))
    assert limits.objection(*call) is None
    table(measured(1000, reference=1.0, tiled=2.0))
    assert 'the reference was faster' in limits.objection(*call)


def test_pyramids_are_the_references_without_an_entry(table, choice):
    weights = [tensor(16, 64 // group, side, side) for side, group in ((3, 1), (5, 4), (7, 8), (9, 16))]
    x, grad, groups = tensor(1, 64, 20, 50), tensor(1, 64, 20, 50), [1, 4, 8, 16]
    shapes = [number for weight in weights for number in (weight.shape[0], *weight.shape[2:])]
    calls = {
        'pyconv2d': (x, weights, None, groups, 1, 1),
        'pyconv2d_relu': (x, weights, None, groups, 1, 1),
        'pyconv2d_grad_input': (grad, weights, (20, 50), groups, 1, 1),
        'pyconv2d_grad_weight': (grad, x, shapes, groups, 1, 1),
    }

    def objection():
        return {name: choice.operators[name]['cuda'].limits.objection(*args) for name, args in calls.items()}

    table()
    assert all('none of its kernels was measured' in answer for answer in objection().values())
    names = [name for name in calls if name != 'pyconv2d_relu']
    table(*(Measured(name, '9.0', 'bfloat16', 64, 64, 1, 1, 1000, {'dense': 1.0}, '3,5,7,9') for name in names))
    assert set(objection().values()) == {None}
    dilated = {name: (*args[:-1], 2) for name, args in calls.items()}
    assert all(choice.operators[name]['cuda'].limits.objection(*args) for name, args in dilated.items())


def test_a_kernel_in_use_goes_before_the_table(table):
    table(measured(1000))
    with use_kernel('inception_conv2d', 'hybrid'):
        assert ask(1) == ask(1000) == 'hybrid'
        with use_kernel('inception_conv2d', 'fused_wgmma'):
            assert ask(1) == 'fused_wgmma'
        assert ask(1) == 'hybrid'
    assert ask(1) is None and ask(1000) == 'kn2row'
    message = r"'pyconv2d' has no kernel 'fused'; there are dense, merged, tiled$"
    with pytest.raises(ValueError, match=message), use_kernel('pyconv2d', 'fused'):
        pass
    message = "'mixture_attention' has no kernels to choose from; inception_conv2d, .* have$"
    with pytest.raises(ValueError, match=message), use_kernel('mixture_attention', 'fused'):
        pass


def test_no_choice_from_before_is_kept(table):
    """Calls on the fast path are chosen anew when another kernel is in use, and again after it."""
    generations = [backend.generation()]
    with use_kernel('inception_conv2d', 'kn2row'):
        generations.append(backend.generation())
    generations.append(backend.generation())
    assert len(set(generations)) == 3


def test_the_library_says_which_kernel_serves(table):
    """It takes the very call that the kernels take."""
    for operator in kernel_table.KERNELS:
        asked, run = (str(getattr(torch.ops.icconv_mm, f'{operator}_{end}').default._schema) for end in ENDS)
        call, _, returned = asked.replace('_kernel(', '_compiled(').rpartition(' -> ')
        assert call == run.rpartition(' -> ')[0] and returned == 'str', operator


def test_explain_names_the_kernel(choice):
    x, weight = torch.randn(1, 32, 5, 5), torch.randn(32, 32, 3, 3)
    answers = explain('inception_conv2d', x, weight, None, [(16, 1, 1), (16, 2, 2)])
    assert answers.kernel == answers.chosen and 'kernel=' not in repr(answers)
    choice.offer('inception_conv2d', lambda *_: None, name=lambda *_: 'some kernel')
    answers = explain('inception_conv2d', x, weight, None, [(16, 1, 1), (16, 2, 2)], 1, 1)
    assert answers.chosen == 'cpu' and answers.kernel == 'some kernel' and "kernel='some kernel'" in repr(answers)
