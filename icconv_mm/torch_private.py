"""Private parts of torch that the package uses, with the versions in which they are known to work."""

import sys
from collections.abc import Callable

import torch
import torch.fx.experimental.proxy_tensor
from torch import nn
from torch.autograd import forward_ad

from icconv_mm.errors import InputError

# tests/test_torch_private.py tests each: run it with a new torch.

# Context manager: operators run without their gradient rules. torch 2.1 to 2.15.
below_autograd = torch._C._AutoDispatchBelowAutograd
# The class of an operator, for annotations. torch 2.1 to 2.15.
Operator = torch._ops.OpOverload
# Whether dynamo traces this; `torch.compiler` has it from 2.2 on. dynamo identifies the function, not its name. torch
# 2.1 to 2.15.
is_compiling = getattr(torch.compiler, 'is_compiling', None) or torch._utils.is_compiling

# Whether ``torch.export`` traces this: from torch 2.7 on; False in older ones.
is_exporting = getattr(torch.compiler, 'is_exporting', None) or (lambda: False)

# Reads a zip archive of ``torch.save`` as ``torch.load`` does. torch 2.1 to 2.15.
ArchiveReader = torch._C.PyTorchFileReader
# Whether it gives a storage as many bytes as a file claims, instead of as many as it has: torch 2.1, not 2.11 and 2.15.
BELIEVES_SIZES = tuple(map(int, torch.__version__.split('.')[:2])) < (2, 11)


def register_decomposition(operator: Operator, function: Callable, fake: Callable) -> None:
    """Sets the decomposition of an operator of an exported program for ``torch.onnx``.

    Symbolic shapes would use it as well and lose the memory format; with a Python meta function of the operator they do
    not. torch 2.1 to 2.15; ``torch.onnx`` reads it from 2.5 on.
    """
    torch._decomp.decomposition_table[operator] = function
    torch._decomp.meta_table[operator] = fake


def keep_in_inductor(operator: Operator) -> None:
    """Makes inductor call an operator that has a decomposition; by default it refuses to if ``CI`` is set.

    Does nothing before inductor is imported, which takes seconds. torch 2.1 to 2.15.
    """
    lowering = sys.modules.get('torch._inductor.lowering')
    if lowering is not None and operator not in lowering.lowerings:
        same_strides = getattr(lowering, 'constrain_to_fake_tensors', lowering.constrain_to_fx_strides)
        lowering.make_fallback(operator, layout_constraint=same_strides, warn=False)


def refuse_script(module: nn.Module) -> None:
    """The ``__prepare_scriptable__`` that ``torch.jit.script`` calls before it reads any code. torch 2.1 to 2.15."""
    raise InputError(f'torch.jit.script cannot read {type(module).__name__}: use torch.export, or torch.jit.trace')


def in_forward_ad() -> bool:
    """Whether forward-mode gradients may be recorded: within ``dual_level``. torch 2.1 to 2.15."""
    return forward_ad._current_level >= 0


def in_functorch() -> bool:
    """Whether a transform of ``torch.func`` runs, such as ``vmap``. torch 2.1 to 2.15."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def has_data(tensor: torch.Tensor) -> bool:
    """Whether a tensor has data: one on the device 'meta' or of a ``FakeTensorMode`` has none. torch 2.1 to 2.15."""
    return not (tensor.is_meta or isinstance(tensor, torch._subclasses.FakeTensor))


def in_dispatch_mode() -> bool:
    """Whether a ``TorchDispatchMode`` observes every operator, such as a FLOP counter. torch 2.1 to 2.15."""
    return torch._C._len_torch_dispatch_stack() > 0


def has_saved_tensors_hooks() -> bool:
    """Whether hooks, such as a checkpoint's, change what autograd saves. torch 2.5 to 2.15; False in older ones."""
    top = getattr(torch._C._autograd, '_top_saved_tensors_default_hooks', None)
    return top is not None and top(True) is not None


def in_transform_or_mode() -> bool:
    """Whether dynamo, a transform, forward-mode differentiation or a dispatch mode observes single operators."""
    # dynamo evaluates the first, so it traces none of the rest
    return is_compiling() or in_forward_ad() or in_dispatch_mode() or in_functorch()


def is_jit_or_onnx_tracing() -> bool:
    """Whether ``torch.jit.trace`` or ``torch.onnx`` records the call; their readers support only torch's operators."""
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()


def class_of(module: nn.Module) -> type[nn.Module]:
    """Returns the class of a module.

    Where a module is used twice, a trace of ``torch.export`` gives all modules classes of its own, of the same names.
    torch 2.1 to 2.15; such classes are known from 2.5 on.
    """
    proxy = getattr(torch.fx.experimental.proxy_tensor, '_AttrProxy', ())
    return type(module.get_base() if isinstance(module, proxy) else module)


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has forward hooks or a replaced forward, so that it must be called. torch 2.1 to 2.15."""
    return bool(module._forward_hooks or module._forward_pre_hooks or 'forward' in vars(module))


def must_be_called(*modules: nn.Module | None, including_backward: bool = False) -> bool:
    """Whether one of some modules :func:`has_hooks`, or all modules have hooks. torch 2.1 to 2.15.

    With ``including_backward`` hooks on gradients count as well, which matter only if gradients are recorded.
    """
    of_all = nn.modules.module
    if of_all._global_forward_hooks or of_all._global_forward_pre_hooks:
        return True
    if of_all._global_backward_hooks or of_all._global_backward_pre_hooks:
        return True
    if including_backward and any(module._backward_hooks or module._backward_pre_hooks for module in modules):
        return True
    return any(module is not None and has_hooks(module) for module in modules)


def has_hooks_recursive(module: nn.Module) -> bool:
    """:func:`has_hooks` of a module or a part of it, or hooks of all modules. torch 2.1 to 2.15."""
    return must_be_called(*module.modules())


def has_kernel(operator: str, key: str) -> bool:
    """Whether an operator (``'icconv_mm::name'``, defined) has a kernel for a dispatch key. torch 2.1 to 2.15."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator, key)


def register_load_state_dict_pre_hook(module: nn.Module, hook: Callable[..., None]) -> None:
    """Registers ``hook(module, state_dict, prefix, ...)`` for calls before a module loads; public from torch 2.5 on."""
    if hasattr(module, 'register_load_state_dict_pre_hook'):
        module.register_load_state_dict_pre_hook(hook)
    else:
        module._register_load_state_dict_pre_hook(hook, with_module=True)


def untyped(storage: torch.TypedStorage) -> torch.UntypedStorage:
    """Returns the memory of a storage with a dtype, without the warning of its method. torch 2.1 to 2.15."""
    return storage._untyped_storage
