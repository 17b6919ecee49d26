"""``icconv_mm.deploy``: a faster copy of a trained model for inference, with packed convolutions on the CPU."""

import copy
import logging
import warnings
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.compat import is_model_wrapper
from icconv_mm.deployment.chains import (
    FOLDABLE,
    Chain,
    Folded,
    find_chains,
    fold_integrated_norms,
    fold_norm,
    is_plain,
    taken_apart,
)
from icconv_mm.layers import ICConv2d, ICConv2dReLU, PyConv2d, PyConv2dReLU
from icconv_mm.layers.convert import convert_all
from icconv_mm.layers.fast_eval import is_packed, packed_conv2d, packed_conv2d_add_relu_, packs
from icconv_mm.layers.memory_format import computes_in_channels_last, leaving
from icconv_mm.layers.settings import layer_like


class PackedConv2d(nn.Conv2d):
    """A convolution with packed filters where possible (:mod:`icconv_mm.layers.fast_eval`), torch's own elsewhere.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> PackedConv2d.of(conv)(torch.randn(1, 8, 16, 16)).shape
        torch.Size([1, 6, 16, 16])
    """

    relu = False  # whether ReLU follows
    # of this exact class: see icconv_mm.layers.fast_eval and icconv_mm.backbones.blocks
    makes_new_map = frees_input = takes_sum = True

    @classmethod
    def of(cls, conv: nn.Conv2d) -> 'PackedConv2d':
        """Returns the layer with the parameters of ``conv``."""
        return layer_like(conv, cls)

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``."""
        if is_packed(input, self):
            return leaving(packed_conv2d(input, self, self.relu), input)
        y = super().forward(input)
        return leaving(F.relu(y) if self.relu else y, input)

    def add_relu(self, x: Tensor, z: Tensor, overwrite: bool = False) -> Tensor:
        """``relu(self(x) + z)``.

        Args:
            x: ``[N, C_in, H, W]``.
            z: ``[N, C_out, H', W']``.
            overwrite: Whether z has no other user. The result then overwrites z if possible, as a new map costs more
                than the sum.

        Returns:
            ``[N, C_out, H', W']``; z itself if it was overwritten.
        """
        if overwrite and is_packed(x, self) and self._may_overwrite(z, x):
            packed_conv2d_add_relu_(z, x, self)
            return z
        y = self(x)
        y += z  # in place: no gradient needs the output of a convolution
        return F.relu_(y)

    def _may_overwrite(self, z: Tensor, x: Tensor) -> bool:
        """Whether z has the format of the output, and no gradient needs it."""
        if type(z) is not Tensor or (torch.is_grad_enabled() and z.requires_grad) or z.dtype != x.dtype:
            return False
        return z.shape == self.output_shape(x) and z.is_contiguous(memory_format=torch.channels_last)

    def output_shape(self, x: Tensor) -> tuple[int, ...]:
        """Returns ``(N, C_out, H', W')``, the shape of the output for ``x``."""
        numbers = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation)
        sides = ((size + 2 * pad - dil * (side - 1) - 1) // step + 1 for size, side, step, pad, dil in numbers)
        return x.shape[0], self.out_channels, *sides


class PackedConv2dReLU(PackedConv2d):
    """``relu(PackedConv2d(x))``, without gradient if filters are packed.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> PackedConv2dReLU.of(conv)(torch.randn(1, 8, 32, 32)).min()
        tensor(0.)
    """

    relu = makes_new_map = frees_input = True
    takes_sum = False  # the sum would come before ReLU


# layers that compute relu(conv(x)) in one operator
_RELU = {ICConv2d: ICConv2dReLU, PyConv2d: PyConv2dReLU, PackedConv2d: PackedConv2dReLU}
_log = logging.getLogger(__name__)


def deploy(model: nn.Module) -> nn.Module:
    """Returns a copy of the model for inference: same results (to 1e-4 of the maximum in float32), less work.

    Batch norms, also synchronised and integrated ones, become part of the convolution before them; a ReLU after a
    convolution becomes part of it; weights are channels_last. The last convolution of a block of this package includes
    the sum with the shortcut and its ReLU. On the CPU plain convolutions keep their filters in oneDNN's order, for the
    last sizes of maps. Other norms stay. A norm is folded only if the code of its module shows that it is the only user
    of the convolution; otherwise it stays. One log line at level INFO counts what was folded and fused, and the modules
    whose code could not be traced. On a GPU only norms are folded and ReLUs of inception and pyramidal convolutions
    fused.

    Args:
        model: A backbone, neck, or whole model of any task library; it is not changed. A wrapper for distributed
            training is removed.

    Returns:
        A new model of the same class in evaluation mode. Parameters do not require gradients and have other names: load
        the model's checkpoint before, not after. Switching to training mode is an error. It exports, traces and
        compiles as the model does. If there is nothing to fold or fuse, a warning says so, and the copy is unchanged.

    Raises:
        TypeError: If ``model`` is not a module, or the result of ``torch.compile``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f'deploy takes a torch.nn.Module, got {type(model).__name__}')
    if hasattr(model, '_orig_mod'):
        raise TypeError('deploy takes the model itself: call torch.compile on what deploy returns')
    model = copy.deepcopy(model.module if is_model_wrapper(model) else model)
    model.eval()  # eval() of some modules of task libraries does not return the module
    model.requires_grad_(False)
    norms = relus = 0
    untraced = Counter()
    apart = taken_apart(model)
    for module in list(model.modules()):
        if getattr(module, 'with_cp', False):  # recomputation would hide a block's code from tracing
            module.with_cp = False
        norms += fold_integrated_norms(module)
        chains = [] if module in apart else find_chains(module)
        if chains is None:
            untraced[type(module).__name__] += 1
        for chain in chains or []:
            norms += chain.norm is not None
            relus += _shorten(module, chain)
    if norms + relus == 0:
        warnings.warn(f'deploy: {type(model).__name__} has no norm to fold and no ReLU to fuse', stacklevel=2)
    kinds = ', '.join(f'{count} {kind}' for kind, count in untraced.most_common())
    left = f', {untraced.total()} modules left as they are, whose code cannot be traced: {kinds}' if untraced else ''
    _log.info('deploy: %s: %d norms folded, %d ReLUs fused%s', type(model).__name__, norms, relus, left)
    # plain convolutions without ReLU: those that are called
    kept = {level for module in model.modules() if isinstance(module, PyConv2d) for level in module.pyconv_levels}
    convs = [(name, conv) for name, conv in model.named_modules() if name and conv not in kept and _is_packable(conv)]
    convert_all(model, convs, lambda conv, kind: kind.of(conv), [PackedConv2d] * len(convs))
    _lay_out(model)
    return model


def _is_packable(conv: nn.Module) -> bool:
    return is_plain(conv) and conv.weight.device.type == 'cpu' and packs(conv.weight.dtype)


def _lay_out(model: nn.Module) -> None:
    """Converts filters to the format of the kernels, where maps are: elsewhere torch would return channels_last maps.

    Unknown layers may view their filters in another shape, and keep them.
    """
    kinds = *FOLDABLE, ICConv2dReLU, PackedConv2d, PackedConv2dReLU
    for module in computes_in_channels_last(model):
        if type(module) in kinds and type(module) is not PyConv2d:
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def _shorten(container: nn.Module, chain: Chain) -> bool:
    """Replaces a chain by one convolution; returns whether a ReLU was fused."""
    conv = container.get_submodule(chain.conv)
    if chain.norm is not None:
        conv = fold_norm(conv, container.get_submodule(chain.norm))
        _put(container, chain.norm, Folded())
    relu = _RELU.get(PackedConv2d if _is_packable(conv) else type(conv))
    fuses = chain.relu is not None and relu is not None
    if fuses:
        conv = relu.of(conv)
        _put(container, chain.relu, Folded())
    _put(container, chain.conv, conv)
    return fuses


def _put(container: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition('.')
    setattr(container.get_submodule(parent), attribute, module.eval())
