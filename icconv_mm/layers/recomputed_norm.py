"""Outputs of batch norm and ReLU that the backward pass recomputes, instead of keeping them from the forward pass.

The input of batch norm is kept for its own gradient. Its output is kept only as the input of the next convolution, and
follows from the input by one cheap pass. In-Place Activated BatchNorm, https://arxiv.org/abs/1712.02616, has the
same aim and inverts the activation; ReLU has no inverse.
"""

from contextlib import AbstractContextManager, nullcontext

import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from icconv_mm.layers.fast_eval import norm_relu
from icconv_mm.torch_private import (
    has_saved_tensors_hooks,
    in_transform_or_mode,
    is_jit_or_onnx_tracing,
    must_be_called,
)


class _Recipe:
    """The inputs from which a map is recomputed."""

    def __init__(self, x: Tensor, norm: nn.BatchNorm2d):
        self.by_batch = norm.training or norm.running_mean is None
        statistics = (None, None) if self.by_batch else (norm.running_mean, norm.running_var)
        affine = (None if parameter is None else parameter.detach() for parameter in (norm.weight, norm.bias))
        self.arguments = (x.detach(), *statistics, *affine, self.by_batch, 0.0, norm.eps)

    def __call__(self) -> Tensor:
        return F.batch_norm(*self.arguments).relu_()


class _Recomputed(saved_tensors_hooks):
    """A context, used once, in which autograd saves a recipe instead of one map.

    The map is identified by its address in memory, and held until then, so no other map can have this address.
    """

    def __init__(self, output: Tensor, recipe: _Recipe):
        self._held, place = output, _place(output)
        super().__init__(
            lambda kept: recipe if _place(kept) == place else kept,
            lambda kept: kept() if isinstance(kept, _Recipe) else kept,
        )

    def __exit__(self, *args) -> None:
        self._held = None
        super().__exit__(*args)


def _place(x: Tensor) -> tuple:
    return x.data_ptr(), x.dtype, x.shape, x.stride()


def recomputed_norm_relu(
    x: Tensor, conv: nn.Module, norm: nn.Module, relu: nn.Module
) -> tuple[Tensor, AbstractContextManager]:
    """:func:`~icconv_mm.layers.fast_eval.norm_relu`, whose output autograd need not keep.

    Args:
        x: ``[N, C, H, W]``, the output of ``conv`` without another user.
        conv: The convolution with this output.
        norm: A norm. Only the output of ``nn.BatchNorm2d`` is recomputed.
        relu: An activation.

    Returns:
        ``relu(norm(x))``, and a context for the one call that reads it. Gradients are the same bit for bit. If nothing
        can be saved, or something observes single steps, the context does nothing.
    """
    if not _is_recomputed(x, conv, norm, relu):
        return norm_relu(x, conv, norm, relu), nullcontext()
    output, recipe = norm(x), _Recipe(x, norm)
    with _Recomputed(output, recipe):
        output = relu(output)
    return output, _Recomputed(output, recipe)


def _is_recomputed(x: Tensor, conv: nn.Module, norm: nn.Module, relu: nn.Module) -> bool:
    if in_transform_or_mode() or is_jit_or_onnx_tracing() or type(x) is not Tensor or not x.requires_grad:
        return False
    if type(norm) is not nn.BatchNorm2d or type(relu) is not nn.ReLU or not relu.inplace:
        return False
    if has_saved_tensors_hooks():  # checkpointing around this network keeps even less
        return False
    return not must_be_called(conv, norm, relu)
