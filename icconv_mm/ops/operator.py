"""The one way to define an operator of this package, and what its function does around it.

An operator is a schema, a reference in plain PyTorch, the shapes of its results, the compiled kernels that may take it
over and, where they apply, a gradient, an autocast rule and FLOPs. It is defined with ``torch.library.Library``, which
is the same from torch 2.1 on.
"""

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import flop_counter

from icconv_mm.ops import backend
from icconv_mm.ops.tensors import lower, memory_format, tensors_of

below_autograd = torch._C._AutoDispatchBelowAutograd  # context manager: operators run past their gradient rules
_library = torch.library.Library('icconv_mm', 'FRAGMENT')


def define(
    name: str,
    schema: str,
    reference: Callable,
    *,
    fake: Callable,
    autograd: Callable | None = None,
    autocast: bool = False,
    flops: Callable | None = None,
    layout_of: int | None = None,
    kernels: Mapping[str, backend.Limits] | None = None,
) -> torch._ops.OpOverload:
    """Defines ``torch.ops.icconv_mm.<name>``, and returns it.

    Args:
        name: Of the operator.
        schema: Its arguments and results, ``(Tensor x, ...) -> Tensor``.
        reference: Computes it on tensors of any device.
        fake: Empty tensors of the shapes, dtypes and memory formats of the results, for tensors without data.
        autograd: ``(operator, *args)``, computes it where a gradient may be wanted; None if one never is.
        autocast: Whether ``torch.autocast`` lowers the dtype of its tensors.
        flops: As torch's FLOP counter asks, a function of the shapes of the arguments and of ``out_shape``.
        layout_of: Number of the argument whose memory format the results have; None for contiguous ones.
        kernels: What limits the compiled kernels ``<name>_compiled``, by device type; none if left out.
    """
    backend.register(name, reference, kernels or {})
    _library.define(f'{name}{schema}')
    packet = getattr(torch.ops.icconv_mm, name)
    operator = packet.default

    def kernel(*args):
        out = backend.run(name, *args)
        fmt = torch.contiguous_format if layout_of is None else memory_format(args[layout_of])
        if isinstance(out, Tensor):
            return out.contiguous(memory_format=fmt)
        return type(out)(each.contiguous(memory_format=fmt) for each in out)

    def with_gradient(*args):
        if torch.is_grad_enabled():
            return autograd(operator, *args)
        with below_autograd():  # the same without the cost of preparing a gradient
            return operator(*args)

    def lowered(device: str) -> Callable:
        def rule(*args):
            with torch.autocast(device, enabled=False):
                return operator(*(lower(arg, device) for arg in args))

        return rule

    _library.impl(name, kernel, 'CompositeExplicitAutograd')
    _library.impl(name, fake, 'Meta')  # the dispatch key of fake tensors; `register_fake` came with torch 2.4
    if autograd:
        _library.impl(name, with_gradient, 'Autograd')
    if autocast:
        _library.impl(name, lowered('cpu'), 'AutocastCPU')
        _library.impl(name, lowered('cuda'), 'AutocastCUDA')
    if flops and hasattr(flop_counter, 'register_flop_formula'):
        flop_counter.register_flop_formula(packet)(flops)
    elif flops:  # before torch 2.2
        flop_counter.flop_mapping[packet] = flops
    return operator


def is_traced() -> bool:
    """Whether the call is recorded for a runtime or a FLOP counter that knows torch's own operators only."""
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()


def written_out(reference: Callable, check: Callable, *args):
    """A checked call of the reference, for a trace: shapes become constants there, which is no reason to warn."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        check(*args)
        return reference(*args)


def differentiable_once(backward: Callable, count: int) -> Callable:
    """A gradient rule whose backward pass is an operator, ``backward(grad, *args)``, without a gradient of its own.

    It returns the gradients for the first ``count`` arguments, which are the tensors.
    """

    def rule(operator, *args):
        return _Once.apply(operator, backward, args[count:], *args[:count])

    return rule


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, operator, backward, settings, *tensors):
        ctx.save_for_backward(*tensors)
        ctx.operator, ctx.settings = backward, settings
        with below_autograd():
            return operator(*tensors, *settings)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grads = ctx.operator(grad, *ctx.saved_tensors, *ctx.settings)
        return None, None, None, *(each if need else None for each, need in zip(grads, ctx.needs_input_grad[3:]))


def without_gradient(operator: torch._ops.OpOverload, *args):
    """A gradient rule: there is none, and it is an error to want one."""
    if any(tensor.requires_grad for tensor in tensors_of(args)):
        name = operator._schema.name.removeprefix('icconv_mm::')
        raise RuntimeError(f'{name} is for inference, without a gradient: use torch.no_grad() or the plain operator')
    with below_autograd():
        return operator(*args)
