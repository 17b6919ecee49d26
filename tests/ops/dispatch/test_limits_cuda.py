"""When the CUDA kernels are chosen: decided from shapes, dtype and GPU alone, so it is tested without one."""

from types import SimpleNamespace

import pytest
import torch

from icconv_mm.ops import explain
from icconv_mm.ops.dispatch import backend, limits_cuda, proven_gpus
from icconv_mm.ops.dispatch.kernel_table import KERNELS

PATTERN = (16, 1, 1, 8, 2, 2, 8, 4, 1)
HOPPER, OTHER = (9, 0), (7, 5)


@pytest.fixture(autouse=True)
def card(monkeypatch):
    """A GPU of the compute capability that the test sets."""
    held = {'capability': HOPPER}
    monkeypatch.setattr(proven_gpus, 'capability', lambda device: held['capability'])
    return held


@pytest.fixture
def answers(choice):
    """Refusal or objection of the forward pass and of both gradients; None where the kernel is chosen."""
    if reason := backend.missing_library():
        pytest.skip(reason)

    def ask(x, weight, pattern=PATTERN, groups=1):
        calls = {
            'inception_conv2d': (x, weight, None, pattern, 1, groups),
            'inception_conv2d_relu': (x, weight, None, pattern, 1, groups),
            'inception_conv2d_grad_input': (x, weight, (9, 9), pattern, 1, groups),
            'inception_conv2d_grad_weight': (tensor(1, weight.shape[0], 9, 9, dtype=x.dtype), x, pattern, 1, groups),
        }
        limits = {name: choice.operators[name]['cuda'].limits for name in calls}
        return [limits[name].refusal(*args) or limits[name].objection(*args) for name, args in calls.items()]

    return ask


def tensor(*shape, dtype=torch.bfloat16, device='cuda:0'):
    """What the choice looks at; there may be no GPU to put a tensor on."""
    size = torch.empty((), dtype=dtype).element_size()
    return SimpleNamespace(shape=shape, dtype=dtype, device=torch.device(device), element_size=lambda: size)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_chosen_where_it_is_proven(answers, card, dtype):
    call = tensor(1, 32, 9, 9, dtype=dtype), tensor(32, 32, 3, 3, dtype=dtype)
    assert answers(*call) == [None] * 4
    card['capability'] = OTHER
    assert all('tests have not passed' in answer for answer in answers(*call))


def test_float64_is_for_those_who_ask(answers):
    call = tensor(1, 32, 9, 9, dtype=torch.float64), tensor(32, 32, 3, 3, dtype=torch.float64)
    assert all('torch.float64' in answer for answer in answers(*call))


def test_channels_that_do_not_fill_vectors(answers):
    assert all('20 -> 32' in answer for answer in answers(tensor(1, 20, 9, 9), tensor(32, 20, 3, 3)))
    assert all('8 -> 4' in answer for answer in answers(tensor(1, 64, 9, 9), tensor(32, 8, 3, 3), groups=8))


def test_dilations_beyond_what_was_measured(answers):
    call = tensor(1, 32, 9, 9), tensor(32, 32, 3, 3)
    assert answers(*call, pattern=(31, 1, 1, 1, 8, 8)) == [None] * 4
    assert all('largest dilation is 9' in answer for answer in answers(*call, pattern=(31, 1, 1, 1, 1, 9)))
    assert answers(*call, pattern=(31, 1, 1, 0, 1, 9, 1, 2, 2)) == [None] * 4


def test_few_dilations_in_float32(answers):
    """The forward pass alone: the gradients were faster with few dilations, too."""
    call = [tensor(1, 256, 9, 9, dtype=torch.float32), tensor(256, 256, 3, 3, dtype=torch.float32)]
    few = answers(*call, pattern=(64, 1, 1, 64, 1, 2, 64, 2, 1, 64, 2, 2))
    assert ['64 float32 channels' in (answer or '') for answer in few] == [True, True, False, False]


def test_refuses_what_it_cannot_serve():
    x, weight = tensor(1, 32, 9, 9), tensor(32, 32, 3, 3)
    refuses = limits_cuda.LIMITS['inception_conv2d'].refusal
    rest = None, PATTERN, 1, 1
    assert refuses(x, weight, *rest) is None
    assert 'got cpu' in refuses(x, tensor(32, 32, 3, 3, device='cpu'), *rest)
    assert 'cuda:0 and cuda:1' in refuses(x, tensor(32, 32, 3, 3, device='cuda:1'), *rest)
    assert 'torch.bfloat16 and torch.float32' in refuses(x, tensor(32, 32, 3, 3, dtype=torch.float32), *rest)
    assert 'torch.int32' in refuses(tensor(1, 32, 9, 9, dtype=torch.int32), weight, *rest)


def test_explains_a_call_on_the_cpu():
    args = torch.ones(1, 32, 5, 5), torch.ones(32, 32, 3, 3), None, PATTERN, 1, 1
    assert str(explain('inception_conv2d', *args)['cuda']) == 'it takes tensors on a CUDA device, got cpu'


def test_every_kernel_is_in_the_library(choice):
    """Names and devices of the compiled operators are those that the choice asks for; seen without a GPU."""
    if reason := backend.missing_library():
        pytest.skip(reason)
    there = set(torch._C._dispatch_get_registrations_for_dispatch_key('CUDA'))
    if not any(name.startswith('icconv_mm::') for name in there):
        pytest.skip('the compiled operators were built without CUDA')
    wanted = {f'icconv_mm::{operator}_compiled' for operator, kernels in choice.operators.items() if 'cuda' in kernels}
    assert len(wanted) >= 4
    wanted |= {f'icconv_mm::{operator}_kernel' for operator in KERNELS}
    assert wanted <= there
