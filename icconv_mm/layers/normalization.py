"""What follows a convolution in a residual network: a norm, the sum with a shortcut, ReLU."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from icconv_mm.layers.packed_conv import convolve
from icconv_mm.ops.steps.batch_norm import batch_norm_relu_, has_batch_norm_kernel
from icconv_mm.utils.torch_private import has_hooks_recursive, is_compiling, must_be_called


def norm_relu(
    x: Tensor, conv: nn.Module, norm: nn.Module, relu: nn.Module | None = None, shortcut: Tensor | None = None
) -> Tensor:
    """``relu(norm(x) + shortcut)``.

    In evaluation, where nothing is recorded, this runs in place, in one pass over memory: the maps are larger than
    caches, so that each pass that is left out is time, and a map that is not made needs no memory.

    Args:
        x: ``[N, C, H, W]``, what ``conv`` has just made and nothing else uses: it may be overwritten.
        conv: The convolution that made it; with hooks of the user on it, ``x`` is left as it is.
        norm: A norm.
        relu: An activation, or None.
        shortcut: ``[N, C, H, W]``, or None.

    Returns:
        ``[N, C, H, W]``; x itself where batch norm runs in place.
    """
    if _runs_in_place(x, conv, norm, relu, shortcut):
        settings = norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps
        batch_norm_relu_(x, *settings, shortcut, relu is not None)
        return x
    x = norm(x)
    if shortcut is not None and not is_compiling() and has_hooks_recursive(conv):
        x = x + shortcut  # a norm that is folded gives what the convolution made
    elif shortcut is not None:
        x += shortcut  # in place, as no norm reads its output again
    return x if relu is None else relu(x)


def _runs_in_place(
    x: Tensor, conv: nn.Module, norm: nn.Module, relu: nn.Module | None, shortcut: Tensor | None
) -> bool:
    if type(norm) is not nn.BatchNorm2d or norm.training:
        return False
    if is_compiling() or type(x) is not Tensor:  # torch 2.1 compiles no type(x); fx would record what is read below
        return False
    if not has_batch_norm_kernel(x, norm.weight, norm.bias, norm.running_mean, shortcut):
        return False
    if relu is not None and type(relu) is not nn.ReLU:
        return False
    return not must_be_called(conv, norm, relu)


class Shortcut(nn.Sequential):
    """Pooling, a convolution and its norm: the way around a block whose maps change."""

    def forward(self, x: Tensor) -> Tensor:
        *before, conv, norm = self
        for layer in before:
            x = layer(x)
        x = convolve(x, conv)
        return norm_relu(x, conv, norm)


def set_norms_eval(network: nn.Module) -> None:
    """Has the batch norms of a network, integrated ones included, normalise with the statistics that they have."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
