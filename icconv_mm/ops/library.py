"""Operators in torch: definition in ``torch.library``, gradient, decomposition in traces."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.utils import flop_counter

from icconv_mm.ops import dispatch
from icconv_mm.ops.tensors import cast, memory_format, tensors_of
from icconv_mm.patterns import DilationPattern
from icconv_mm.torch_private import (
    Operator,
    below_autograd,
    in_forward_ad,
    in_functorch,
    is_compiling,
    is_jit_or_onnx_tracing,
    keep_in_inductor,
    register_decomposition,
)

# the same interface from torch 2.1 on
fragment = torch.library.Library('icconv_mm', 'FRAGMENT')


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
    kernels: Mapping[str, dispatch.Kernel] | None = None,
    arguments: dispatch.Arguments | None = None,
    standard: Callable | None = None,
) -> Operator:
    """Defines an operator: ``torch.ops.icconv_mm.<name>``.

    Args:
        name: Name of the operator.
        schema: Arguments and results, ``(Tensor x, ...) -> Tensor``.
        reference: Function that computes the results on tensors of any device.
        fake: Function that returns empty tensors of the results' shapes, dtypes and memory formats, for tensors
            without data.
        autograd: Function ``(operator, *args)`` that computes the results if a gradient may be needed; None for an
            operator without a gradient.
        autocast: Whether ``torch.autocast`` casts the tensors.
        flops: Function of the shapes of the arguments and of ``out_shape``, for torch's FLOP counter.
        layout_of: Position of the argument whose memory format the results have; None for contiguous results.
        kernels: Rules of the compiled kernels ``<name>_compiled`` by backend; None if there are none.
        arguments: The arguments of a call, for ``explain``; None if no Python function calls the operator, and
            ``reference`` has its arguments.
        standard: Decomposition of the operator in an exported program for ``torch.onnx``: a function that computes the
            results by operators of runtimes, for any sizes; None if it is not exported.

    Returns:
        The overload of ``torch.ops``.
    """
    dispatch.register(name, reference, kernels or {}, arguments=arguments)
    fragment.define(f'{name}{schema}')
    packet = getattr(torch.ops.icconv_mm, name)
    operator = packet.default

    def implementation(*args):
        out = dispatch.run(name, *args)
        fmt = torch.contiguous_format if layout_of is None else memory_format(args[layout_of])
        if isinstance(out, Tensor):
            return out.contiguous(memory_format=fmt)
        return type(out)(tensor.contiguous(memory_format=fmt) for tensor in out)

    def with_gradient(*args):
        if torch.is_grad_enabled() or in_forward_ad():  # tangents do not require gradients
            return autograd(operator, *args)
        with below_autograd():  # the same without the cost of preparing a gradient
            return operator(*args)

    def under_autocast(device: str) -> Callable:
        def rule(*args):
            with torch.autocast(device, enabled=False):
                return operator(*(cast(arg, device) for arg in args))

        return rule

    fragment.impl(name, implementation, 'CompositeExplicitAutograd')

    def without_data(*args):
        if standard is not None:  # the compiler reads shapes before it looks for code
            keep_in_inductor(operator)
        return fake(*args)

    fragment.impl(name, without_data, 'Meta')  # the dispatch key of fake tensors; `register_fake` came with torch 2.4
    if autograd:
        fragment.impl(name, with_gradient, 'Autograd')
    if autocast:
        fragment.impl(name, under_autocast('cpu'), 'AutocastCPU')
        fragment.impl(name, under_autocast('cuda'), 'AutocastCUDA')
    if standard is not None:
        register_decomposition(operator, standard, fake)
    if flops and hasattr(flop_counter, 'register_flop_formula'):
        flop_counter.register_flop_formula(packet)(flops)
    elif flops:  # before torch 2.2
        flop_counter.flop_mapping[packet] = flops
    return operator


def checked_call(operator: Callable, reference: Callable, check: Callable, *args) -> Any:
    """Checks the arguments and calls the operator, or its decomposition: in a trace and where tangents may be asked."""
    if is_jit_or_onnx_tracing() or (not is_compiling() and (in_functorch() or in_forward_ad())):
        return decomposed(reference, check, *args)
    check(*args)
    return operator(*args)


def decomposed(reference: Callable, check: Callable, *args) -> Any:
    """Checks the arguments and calls the reference without tracer warnings: a trace turns shapes into constants."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        check(*args)
        return reference(*args)


def differentiable_once(backward: Callable, count: int) -> Callable:
    """A gradient rule that works once: its backward pass is an operator without a gradient of its own.

    ``backward(grad, *args)`` returns the gradients of the first ``count`` arguments, which are the tensors.
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
        return None, None, None, *(grad if need else None for grad, need in zip(grads, ctx.needs_input_grad[3:]))


def is_symbol(x: object) -> bool:
    """Whether ``torch.fx`` records the call; a function has control flow on tensors, so it is one step of the graph."""
    return isinstance(x, fx.Proxy)


def recorded(function: Callable, x: fx.Proxy, *args: object) -> fx.Proxy:
    """Records the call of a function as one step of a graph of ``torch.fx``; patterns are lists of runs there."""
    args = [tuple(map(tuple, arg)) if isinstance(arg, DilationPattern) else arg for arg in args]
    return x.tracer.create_proxy('call_function', function, (x, *args), {})


def refuse_gradient(name: str, *args) -> None:
    """Raises RuntimeError if a tensor among the arguments of an operator without a gradient requires one."""
    for tensor in tensors_of(args):
        has_tangent = in_forward_ad() and forward_ad.unpack_dual(tensor).tangent is not None
        if has_tangent or (torch.is_grad_enabled() and tensor.requires_grad):
            raise RuntimeError(
                f'{name} is for inference, without a gradient: use torch.no_grad() or the plain operator'
            )


def without_gradient(operator: Operator, *args) -> Any:
    """A gradient rule for operators without a gradient: raise RuntimeError if a tensor requires one."""
    refuse_gradient(operator._schema.name.removeprefix('icconv_mm::'), *args)
    with below_autograd():
        return operator(*args)
