"""What of torch is private, and used, does what the operators need; run it with a new torch."""

import inspect

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

import icconv_mm.ops  # noqa: F401  defines the operators
from icconv_mm import torch_private


def test_below_autograd():
    x = torch.ones(2, requires_grad=True)
    assert (2 * x).requires_grad
    with torch_private.below_autograd():
        assert not (2 * x).requires_grad


def test_is_jit_or_onnx_tracing():
    assert not torch_private.is_jit_or_onnx_tracing()
    seen = []
    torch.jit.trace(
        lambda x: seen.append(torch_private.is_jit_or_onnx_tracing()) or x + 1, torch.ones(2), check_trace=False
    )
    assert seen == [True]


def test_class_of():
    seen = []

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = torch.nn.Sequential(torch.nn.ReLU())

        def forward(self, x):
            seen.append((torch_private.class_of(self.first), torch_private.class_of(self.first[0])))
            return self.second(x)

    network = Twice()
    network(torch.ones(2))
    if 'strict' in inspect.signature(torch.export.export).parameters:  # from torch 2.4 on
        torch.export.export(network, (torch.ones(2),), strict=False)
        assert len(seen) == 2
    assert set(seen) == {(torch.nn.Sequential, torch.nn.ReLU)}


def test_is_compiling():
    def added(x):
        return x + (1 if torch_private.is_compiling() else 0)

    assert added(torch.zeros(())) == 0
    assert torch.compile(added, backend='eager')(torch.zeros(())) == 1


def test_in_forward_ad():
    assert not torch_private.in_forward_ad()
    with forward_ad.dual_level():
        assert torch_private.in_forward_ad()
    assert not torch_private.in_forward_ad()


def test_in_functorch():
    seen = []

    def square(x):
        seen.append(torch_private.in_functorch())
        return (x * x).sum()

    torch.func.vmap(square)(torch.ones(3, 2))
    torch.func.grad(square)(torch.ones(2))
    square(torch.ones(2))
    assert seen == [True, True, False]


def test_in_dispatch_mode():
    assert not torch_private.in_dispatch_mode()
    with FlopCounterMode(display=False):
        assert torch_private.in_dispatch_mode()
    assert not torch_private.in_dispatch_mode()


@pytest.mark.skipif(
    not hasattr(torch._C._autograd, '_top_saved_tensors_default_hooks'), reason='this torch does not tell'
)
def test_has_saved_tensors_hooks():
    assert not torch_private.has_saved_tensors_hooks()
    with torch.autograd.graph.save_on_cpu():
        assert torch_private.has_saved_tensors_hooks()
    assert not torch_private.has_saved_tensors_hooks()


def test_has_hooks():
    module = torch.nn.ReLU()
    assert not torch_private.has_hooks(module)
    for register in (module.register_forward_hook, module.register_forward_pre_hook):
        handle = register(lambda *_: None)
        assert torch_private.has_hooks(module)
        handle.remove()
        assert not torch_private.has_hooks(module)
    module.forward = torch.nn.Identity().forward
    assert torch_private.has_hooks(module)


def test_must_be_called():
    module, other = torch.nn.ReLU(), torch.nn.ReLU()
    assert not torch_private.must_be_called(module, None, other)
    for register in (other.register_forward_hook, torch.nn.modules.module.register_module_forward_hook):
        handle = register(lambda *_: None)
        assert torch_private.must_be_called(module, None, other)
        handle.remove()
    assert not torch_private.must_be_called(module, None, other)


def test_has_hooks_recursive():
    module = torch.nn.Sequential(torch.nn.ReLU())
    assert not torch_private.has_hooks_recursive(module)
    for register in (module[0].register_forward_hook, torch.nn.modules.module.register_module_forward_hook):
        handle = register(lambda *_: None)
        assert torch_private.has_hooks_recursive(module)
        handle.remove()
    assert not torch_private.has_hooks_recursive(module)


@pytest.mark.parametrize('is_public', [True, False])
def test_register_load_state_dict_pre_hook(is_public, monkeypatch):
    if not is_public:  # as before torch 2.5
        monkeypatch.delattr(torch.nn.Module, 'register_load_state_dict_pre_hook', raising=False)
    seen, module = [], torch.nn.Sequential(torch.nn.Linear(1, 1))
    torch_private.register_load_state_dict_pre_hook(
        module[0], lambda part, state, prefix, *_: seen.append((part, prefix))
    )
    module.load_state_dict(module.state_dict())
    assert seen == [(module[0], '0.')]


def test_reader_of_archives(tmp_path):
    """What it finds is what ``torch.load`` finds, which some versions let claim any size."""
    torch.save({'weight': torch.ones(3)}, tmp_path / 'a.pth')
    with open(tmp_path / 'a.pth', 'rb') as file:
        archive = torch_private.ArchiveReader(file)
        assert {'data.pkl', 'data/0'} <= set(archive.get_all_records()) and len(archive.get_record('data/0')) == 12
        try:
            archive.get_storage_from_record('data/0', 13, torch.UntypedStorage)
        except RuntimeError:
            assert not torch_private.BELIEVES_SIZES
        else:
            assert torch_private.BELIEVES_SIZES


def test_untyped():
    weight = torch.ones(3)
    assert torch_private.untyped(weight._typed_storage()).data_ptr() == weight.data_ptr()


def test_has_kernel():
    """A kernel of that key itself: one for every device does not count."""
    assert torch_private.has_kernel('icconv_mm::inception_conv2d', 'Meta')
    assert not torch_private.has_kernel('icconv_mm::inception_conv2d', 'CPU')
    assert torch_private.has_kernel('aten::add.Tensor', 'CPU')
