"""Backbones of other libraries with inception or pyramidal convolutions.

``ICBackbone`` and ``PyConvBackbone`` have names of classes because they are the ``type`` of a backbone in configs. Both
are functions that build a network from its config, convert it in place and return *that network*, with its own keys,
initialisation, freezing, ``norm_eval``, checkpointing and ``train``.
"""

import re
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from torch import nn

from icconv_mm.backbones.pyconv_resnet import STAGE_GROUPS, STAGE_KERNELS, check_stages, to_pyconv
from icconv_mm.backbones.resnet import pretrained_cfg
from icconv_mm.compat import MODELS
from icconv_mm.errors import InputError
from icconv_mm.layers import PyConv2d, to_inception, to_supernet
from icconv_mm.layers.convert import (
    check_choice,
    convert_all,
    inception_candidates,
    none_selected_message,
    standardized_kinds,
)
from icconv_mm.patterns.receptive_field import evaluating
from icconv_mm.patterns.supernet import LayerFilter, select_convs, selects
from icconv_mm.torch_private import register_load_state_dict_pre_hook

_STAGE = re.compile(r'(?:^|\.)layer([1-4])\.')


def _is_3x3(conv: nn.Module) -> bool:
    return conv.weight.shape[2:] == (3, 3)


@MODELS.register_module()
def ICBackbone(
    backbone: dict | nn.Module,
    pattern: str | Path | Sequence | None = None,
    filter: LayerFilter = None,
    supernet_d_max: int | None = None,
    pretrained: str | Path | None = None,
    init_cfg: dict | list[dict] | None = None,
    align: int | None = None,
) -> nn.Module:
    """Replaces the 3x3 convolutions of any backbone by inception convolutions, under the same keys.

    A function, although configs use it as a ``type``: it returns the backbone, an object of the backbone's own class.

    Deformable and other special convolutions stay unchanged; weight-standardised ones of mmcv stay weight-standardised;
    classes of one's own: :func:`icconv_mm.layers.to_inception`.

    Args:
        backbone: The config of a backbone of any registry, with all its options, or a network.
        pattern: Pattern of the 3x3 convolutions in order of definition: see :func:`icconv_mm.patterns.load_pattern`. An
            analytic name ('geometric_d4', 'dense') fits any network, a published one the ResNet for which it was
            searched.
        filter: Selects convolutions: a regular expression searched in the name or a callable (name, convolution) ->
            bool. By default all but those of the stem, as for :func:`icconv_mm.layers.to_inception`.
        supernet_d_max: Largest dilation of the search, given instead of a pattern. Kernels then have a side
            of ``2 * supernet_d_max + 1``.
        pretrained: A checkpoint (deprecated; use ``init_cfg``).
        init_cfg: mmengine initialisation, instead of the backbone's own ``init_cfg`` or ``pretrained``, with a warning.
        align: Channels in a block, of which the runs of the pattern are made multiples: see
            :func:`icconv_mm.patterns.align`.

    Returns:
        The backbone itself, an object of its own class.

    Raises:
        InputError: If neither or both of ``pattern`` and ``supernet_d_max`` are given, the latter is not positive, no
            convolution is selected, or the pattern does not fit; the message names the layer and the numbers.
        InputTypeError: If ``pretrained`` is neither a path nor a URL.

    Source: IC-Conv, https://arxiv.org/abs/2012.13587.

    Example:
        >>> net = ICBackbone(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)), pattern='geometric_d2')
        >>> net[0].pattern
        DilationPattern(4x(1, 1), 4x(2, 2))
    """
    check_choice('ICBackbone', pattern, supernet_d_max, align)
    network = _build(backbone, pretrained_cfg(pretrained, init_cfg))
    if pattern is None:
        return _refuse_dense(to_supernet(network, supernet_d_max, filter))

    def chosen(name: str, conv: nn.Module) -> bool:
        """Converts the large kernels of a supernet to nine taps, but keeps a network's own large kernels."""
        size = _is_3x3(conv) or hasattr(conv, 'supernet_d_max')
        return size and selects(filter, name, conv, conv.weight.shape[1] * getattr(conv, 'groups', 1))

    if not inception_candidates(network, chosen):
        raise InputError(none_selected_message(network, filter))
    return to_inception(network, pattern, chosen, align)


@MODELS.register_module()
def PyConvBackbone(
    backbone: dict | nn.Module,
    stage_kernels: Sequence[Sequence[int]] = STAGE_KERNELS,
    stage_groups: Sequence[Sequence[int]] | None = None,
    filter: LayerFilter = None,
    pretrained: str | Path | None = None,
    init_cfg: dict | list[dict] | None = None,
) -> nn.Module:
    """Replaces the 3x3 convolutions of any backbone by pyramidal convolutions.

    A function, as :func:`ICBackbone`: it returns the backbone, an object of the backbone's own class.

    A convolution ``name`` becomes ``name.pyconv_levels.N``, with new weights; all other keys stay. Its stage comes from
    its name (``layer1`` to ``layer4``) or, with other names, from its output's stride: 4 and less are the first stage,
    32 and more the last.

    Args:
        backbone: The config of a backbone of any registry, with all its options, or a network.
        stage_kernels: The kernel sizes of each of the four stages, one per level; the default is the paper's.
        stage_groups: The groups of each stage, one per level. By default the paper's and no fewer than the convolution
            has, or as many as divide the channels.
        filter: Selects convolutions, as for :func:`ICBackbone`.
        pretrained: A checkpoint (deprecated; use ``init_cfg``).
        init_cfg: mmengine initialisation, instead of the backbone's own ``init_cfg`` or ``pretrained``, with a warning.

    Returns:
        The backbone itself, an object of its own class.

    Raises:
        InputError: If the tables do not fit each other, no convolution is selected, or groups do not divide the
            channels of one; the message names the layer and the numbers.
        InputTypeError: If ``pretrained`` is neither a path nor a URL.

    Source: PyConv, https://arxiv.org/abs/2006.11538.

    Example:
        >>> net = PyConvBackbone(nn.Sequential(nn.Conv2d(8, 8, 3, stride=4, padding=1)))
        >>> [level.kernel_size for level in net[0].pyconv_levels]
        [(3, 3), (5, 5), (7, 7), (9, 9)]
    """
    groups = stage_groups or STAGE_GROUPS
    check_stages(stage_kernels, groups, 4)
    network = _build(backbone, pretrained_cfg(pretrained, init_cfg))
    chosen = select_convs(network, filter, tuple(standardized_kinds()))
    convs = {name: conv for name, conv in chosen if _is_3x3(conv)}
    if not convs:
        raise InputError(none_selected_message(network, filter))
    stages = stages_of(network, convs)

    def convert(conv: nn.Conv2d, stage: int) -> nn.Module:
        return to_pyconv(conv, stage_kernels[stage], groups[stage], exact=stage_groups is not None)

    return _refuse_dense(convert_all(network, convs.items(), convert, [stages[name] for name in convs]))


def _refuse_dense(network: nn.Module) -> nn.Module:
    """Makes loading fail if a file has dense 3x3 kernels for converted layers, which would stay random."""
    for module in network.modules():
        if isinstance(module, PyConv2d) or hasattr(module, 'supernet_d_max'):
            register_load_state_dict_pre_hook(module, check_kernel)
    return network


def check_kernel(module: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
    """Checks the weights before a converted layer loads them.

    Raises:
        InputError: They are those of the dense convolution.
    """
    weight = state_dict.get(f'{prefix}weight')
    if weight is not None and weight.shape[2:] == (3, 3) != getattr(module, 'kernel_size', None):
        raise InputError(
            f'{prefix}weight of the checkpoint is a dense 3x3 kernel, and the layer has none: set init_cfg=None, or '
            'load the weights of a converted network'
        )


def _build(backbone: dict | nn.Module, init_cfg: dict | list[dict] | None) -> nn.Module:
    if isinstance(backbone, nn.Module):
        if init_cfg is not None:
            if not hasattr(backbone, 'init_weights') or getattr(backbone, 'is_init', False):
                raise InputError(
                    f'{type(backbone).__name__}: init_cfg would not be read: the network has no init_weights, or '
                    'it has run; load the weights into the network before'
                )
            backbone.init_cfg = init_cfg
        return backbone
    if init_cfg is not None:
        for name in ('pretrained', 'init_cfg'):
            if setting := backbone.get(name):
                warnings.warn(
                    f'{name}={setting} of {backbone["type"]} is ignored: its wrapper sets init_cfg={init_cfg}',
                    stacklevel=3,
                )
        rest = {name: value for name, value in backbone.items() if name not in ('pretrained', 'init_cfg')}
        backbone = {**rest, 'init_cfg': init_cfg}
    return MODELS.build(backbone)


def stages_of(network: nn.Module, convs: dict[str, nn.Conv2d]) -> dict[str, int]:
    """Returns the stage of each convolution, 0 to 3, by its name or by the size of its output on an image."""
    named = {name: int(match[1]) - 1 for name in convs if (match := _STAGE.search(name))}
    if len(named) == len(convs):
        return named
    side, stages = 128, {}

    def measure(name: str, _: nn.Module, __: tuple, output: torch.Tensor) -> None:
        stages[name] = max(4, min(32, side // output.shape[-1])).bit_length() - 3  # of a stride of 4 to 32

    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    with ExitStack() as hooks, evaluating(network), torch.no_grad():
        for name, conv in convs.items():
            hooks.enter_context(conv.register_forward_hook(partial(measure, name)))
        try:
            network(first.weight.new_zeros(1, first.in_channels, side, side))
        except RuntimeError:  # YOLOX slices an image of three channels for its first convolution
            network(first.weight.new_zeros(1, 3, side, side))
    if missing := [name for name in convs if name not in stages]:
        raise InputError(f'{type(network).__name__}: {missing[0]} never runs in a forward pass: filter it out')
    return stages
