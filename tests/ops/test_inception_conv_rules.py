"""When the CUDA kernels are chosen: decided from shapes, dtype and GPU alone, so it is tested without one."""

from types import SimpleNamespace

import pytest
import torch

from icconv_mm.ops import convolution
from icconv_mm.ops.compiled_library import missing_library

PATTERN = (16, 1, 1, 8, 2, 2, 8, 4, 1)
HOPPER, OTHER = (9, 0), (7, 5)


@pytest.fixture(autouse=True)
def card(monkeypatch):
    """A GPU of the compute capability that the test sets."""
    held = {'capability': HOPPER}
    monkeypatch.setattr(convolution, 'capability', lambda device: held['capability'])
    return held


@pytest.fixture
def answers(choice):
    """Refusal or objection of the forward pass and of both gradients; None where the kernel is chosen."""
    if reason := missing_library():
        pytest.skip(reason)

    def ask(x, weight, pattern=PATTERN, groups=1):
        calls = {
            'inception_conv2d': (x, weight, None, pattern, 1, groups),
            'inception_conv2d_relu': (x, weight, None, pattern, 1, groups),
            'inception_conv2d_grad_input': (x, weight, (9, 9), pattern, 1, groups),
            'inception_conv2d_grad_weight': (tensor(1, weight.shape[0], 9, 9, dtype=x.dtype), x, pattern, 1, groups),
        }
        kernels = {name: choice.operators[name]['cuda'] for name in calls}
        return [kernels[name].refusal(*args) or kernels[name].objection(*args) for name, args in calls.items()]

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


def test_refuses_what_it_cannot_serve(choice):
    x, weight = tensor(1, 32, 9, 9), tensor(32, 32, 3, 3)
    refuses = choice.operators['inception_conv2d']['cuda'].refusal
    rest = None, PATTERN, 1, 1
    assert refuses(x, weight, *rest) is None
    assert 'got cpu' in refuses(x, tensor(32, 32, 3, 3, device='cpu'), *rest)
    assert 'cuda:0 and cuda:1' in refuses(x, tensor(32, 32, 3, 3, device='cuda:1'), *rest)
    assert 'torch.bfloat16 and torch.float32' in refuses(x, tensor(32, 32, 3, 3, dtype=torch.float32), *rest)
    assert 'torch.int32' in refuses(tensor(1, 32, 9, 9, dtype=torch.int32), weight, *rest)
