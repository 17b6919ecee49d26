"""Convolution and ReLU in one operator, for networks in inference form.

``inception_conv2d_relu`` and ``pyconv2d_relu`` are the operators without the suffix, then ReLU: a compiled kernel
rectifies while it stores, which saves a pass over the output. They have no gradient, and say so when one is asked for.

Their reference is the plain operator and a ReLU. It runs on the backend that serves the plain call, so that a backend
without a fused kernel costs no more than before.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps

import torch
from torch import Tensor

from icconv_mm.ops import backend, inception_conv_flops, inception_conv_reference, pyconv_flops, pyconv_reference
from icconv_mm.ops.autocast import lower
from icconv_mm.ops.checks import tensors_of
from icconv_mm.ops.inception_conv import check_call as check_inception_call
from icconv_mm.ops.inception_conv import inception_conv2d
from icconv_mm.ops.pyconv import check_call as check_pyconv_call
from icconv_mm.ops.pyconv import pyconv2d
from icconv_mm.patterns import DilationPattern

_library = torch.library.Library('icconv_mm', 'FRAGMENT')
_ops = torch.ops.icconv_mm


def inception_conv2d_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pattern: DilationPattern | Iterable[tuple[int, int, int]],
    stride: int = 1,
    groups: int = 1,
) -> Tensor:
    """``relu(inception_conv2d(...))``: arguments, result and errors are those of ``inception_conv2d``.

    Raises:
        RuntimeError: Also, if an argument requires a gradient while gradients are recorded.
    """
    pattern = DilationPattern.of(pattern)
    if _is_traced() or len(pattern) == 1:  # written out, or an ordinary convolution: nothing to fuse
        return inception_conv2d(x, weight, bias, pattern, stride, groups).relu_()
    check_inception_call(x, weight, bias, pattern, stride, groups)
    return _ops.inception_conv2d_relu(x, weight, bias, pattern.flat, stride, groups)


def pyconv2d_relu(
    x: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None,
    groups: Sequence[int],
    stride: int = 1,
    dilation: int = 1,
) -> Tensor:
    """``relu(pyconv2d(...))``: arguments, result and errors are those of ``pyconv2d``.

    Raises:
        RuntimeError: Also, if an argument requires a gradient while gradients are recorded.
    """
    weights, groups = list(weights), [int(group) for group in groups]
    if _is_traced() or len(weights) == 1:
        return pyconv2d(x, weights, bias, groups, stride, dilation).relu_()
    check_pyconv_call(x, weights, bias, groups, stride, dilation)
    return _ops.pyconv2d_relu(x, weights, bias, groups, stride, dilation)


def _is_traced() -> bool:
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()


def _kernel(name: str) -> Callable:
    def kernel(x, *args):
        return backend.run(name, x, *args).contiguous(memory_format=inception_conv_reference.memory_format(x))

    return kernel


def _composed(plain: str, reference: Callable) -> Callable:
    @wraps(reference)
    def composed(*args):
        return backend.run(plain, *args).relu_()

    return composed


def _no_gradient(name: str) -> Callable:
    def rule(*args):
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors_of(args)):
            raise RuntimeError(
                f'{name} is for inference, without a gradient: use torch.no_grad() or the plain operator'
            )
        with torch._C._AutoDispatchBelowAutograd():
            return getattr(_ops, name)(*args)

    return rule


def _autocast_rule(name: str, device: str) -> Callable:
    def rule(x, weights, bias, *args):
        with torch.autocast(device, enabled=False):
            return getattr(_ops, name)(*lower([x, weights, bias], device), *args)

    return rule


def _define(plain: str, schema: str, reference: Callable, flops: Callable) -> None:
    """The operator ``<plain>_relu`` with the arguments ``schema``, those of the plain one's reference."""
    name = f'{plain}_relu'
    _library.define(f'{name}({schema}) -> Tensor')
    _library.impl(name, _kernel(name), 'CompositeExplicitAutograd')
    # ReLU keeps the shape, and the plain operator's kernel for meta tensors returns a new one
    _library.impl(name, lambda *args: getattr(_ops, plain)(*args), 'Meta')
    _library.impl(name, _no_gradient(name), 'Autograd')
    _library.impl(name, _autocast_rule(name, 'cpu'), 'AutocastCPU')
    _library.impl(name, _autocast_rule(name, 'cuda'), 'AutocastCUDA')
    backend.register(name, 'reference', _composed(plain, reference))
    inception_conv_flops.register_formula(getattr(_ops, name), flops)


_define(
    'inception_conv2d',
    'Tensor x, Tensor weight, Tensor? bias, int[] pattern, int stride, int groups',
    inception_conv_reference.forward,
    inception_conv_flops.forward_flops,
)
_define(
    'pyconv2d',
    'Tensor x, Tensor[] weights, Tensor? bias, int[] groups, int stride, int dilation',
    pyconv_reference.forward,
    pyconv_flops.forward_flops,
)
