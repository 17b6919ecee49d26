"""Networks by name, as in timm; torch alone is enough."""

import copy
import difflib
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from math import prod
from numbers import Integral
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm import backbones
from icconv_mm.arguments import check_positive, check_probability
from icconv_mm.backbones.resnet import STRIDES, ResNet
from icconv_mm.backbones.wrapper import ICBackbone
from icconv_mm.checkpoints import reading, shipped
from icconv_mm.checkpoints.convert import read_checkpoint
from icconv_mm.checkpoints.matching import check_fits, state_dict_of
from icconv_mm.compat import init_weights
from icconv_mm.errors import InputError, MissingLibraryError
from icconv_mm.layers.convert import check_choice
from icconv_mm.patterns.supernet import LayerFilter
from icconv_mm.torch_private import register_load_state_dict_pre_hook
from icconv_mm.versions import command_of

__all__ = ['FeatureInfo', 'ImageClassifier', 'create_model', 'from_timm', 'list_models']

_RESNEXTS = {'50_32x4d': (50, 32, 4), '101_32x4d': (101, 32, 4), '101_32x8d': (101, 32, 8), '101_64x4d': (101, 64, 4)}
_TASKS = ('classification', 'detection')  # of shipped weights, the better ones for a classifier first
_SMALL = dict(depth=18, base_channels=24, stem_channels=24, pattern='geometric_d4', align=16)
# name -> (class of icconv_mm.backbones, its options)
_MODELS: dict[str, tuple[str, dict]] = {
    **{f'ic_resnet{depth}': ('ICResNet', dict(depth=depth)) for depth in (18, 34, 50, 101, 152)},
    **{f'ic_resnet{depth}c': ('ICResNetV1c', dict(depth=depth)) for depth in (18, 34, 50, 101, 152)},
    **{f'ic_resnet{depth}d': ('ICResNetV1d', dict(depth=depth)) for depth in (18, 34, 50, 101, 152)},
    **{
        f'ic_resnext{name}': ('ICResNeXt', dict(depth=depth, groups=groups, base_width=width))
        for name, (depth, groups, width) in _RESNEXTS.items()
    },
    **{f'pyconv_resnet{depth}': ('PyConvResNet', dict(depth=depth)) for depth in (18, 34, 50, 101, 152)},
    **{f'pyconv_resnet{depth}_two': ('PyConvResNet', dict(depth=depth, two_pyconvs=True)) for depth in (18, 34)},
    **{f'pyconv_hgresnet{depth}': ('PyConvHGResNet', dict(depth=depth)) for depth in (50, 101, 152)},
    'small': ('ICResNet', _SMALL),  # as of configs/_base_/backbones
    'small_s8': ('ICResNet', dict(_SMALL, strides=(2, 2, 2, 2))),
}


class FeatureInfo:
    """Information on the feature maps of a network, with timm's names.

    Args:
        info: ``dict(num_chs=, reduction=, module=, index=)`` of every stage: channels, pixels of the image per pixel of
            the map along one side, the module of the map, and the stage's number.
        out_indices: The stages of the returned maps: numbers, negative ones from the end, or the number of last stages.

    Raises:
        InputError: For a missing stage.

    Example:
        >>> info = create_model('pyconv_resnet18', features_only=True, out_indices=(1, 3)).feature_info
        >>> info.channels(), info.reduction(), info.channels(0)
        ([128, 512], [8, 32], 64)
    """

    def __init__(self, info: list[dict], out_indices: int | Sequence[int]):
        self.info, self.out_indices = info, _stages('out_indices', out_indices, len(info))

    def from_other(self, out_indices: int | Sequence[int]) -> 'FeatureInfo':
        """Returns the information with other returned maps."""
        return FeatureInfo(copy.deepcopy(self.info), out_indices)

    def __len__(self) -> int:
        return len(self.info)

    def __getitem__(self, stage: int) -> dict:
        return self.info[stage]

    def get_dicts(self, keys: Sequence[str] | None = None, idx: int | Sequence[int] | None = None) -> dict | list[dict]:
        """Returns the information on the returned maps, or of stage(s) ``idx``; only ``keys`` of each if given."""
        if isinstance(idx, int):
            return {key: value for key, value in self.info[idx].items() if keys is None or key in keys}
        return [self.get_dicts(keys, stage) for stage in (self.out_indices if idx is None else idx)]

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """Returns one value of each returned map, of one stage ``idx``, or of several."""
        if isinstance(idx, int):
            return self.info[idx][key]
        return [self.info[stage][key] for stage in (self.out_indices if idx is None else idx)]

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Returns the channels, as :meth:`get` does."""
        return self.get('num_chs', idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Returns the pixels of the image per pixel of the map, along one side, as :meth:`get` does."""
        return self.get('reduction', idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Returns the module of a map, as :meth:`get` does."""
        return self.get('module', idx)


def _stages_of(network: ResNet, prefix: str = '') -> list[dict]:
    reduction, stages = network.stem_stride, []
    for stage, channels in enumerate(network.out_channels):
        reduction *= network.stage_stride(stage)
        stages.append(dict(num_chs=channels, reduction=reduction, module=f'{prefix}layer{stage + 1}', index=stage))
    return stages


def _stages(name: str, indices: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Returns stages in ascending order; as in timm, -1 is the last one, and a number alone the last so many."""
    given = indices
    if isinstance(indices, Integral) and not isinstance(indices, bool) and 0 < indices <= count:
        indices = range(-indices, 0)
    if (
        not isinstance(indices, Sequence)
        or isinstance(indices, str)
        or not all(isinstance(index, Integral) and -count <= index < count for index in indices)
    ):
        last = f'0 to {count - 1}, negative ones from the end, or the number of last stages'
        raise InputError(f'{name} must be stages, {last}, got {given!r}')
    return tuple(sorted({range(count)[index] for index in indices}))


class ImageClassifier(nn.Module):
    """A backbone, a pooling of the last map, and a linear layer, with the methods and attributes of timm's networks.

    State dicts have the keys of mmpretrain, ``backbone.*`` and ``head.fc.*``; those of torchvision and timm
    (``layer1.*``, ``fc.*``) load as well.

    Args:
        backbone: A backbone that returns its last map.
        num_classes: Number of outputs of the linear layer; 0 for no layer; 1000 by default.
        drop_rate: Probability of dropout before the linear layer, at least 0 and below 1; 0 by default.
        global_pool: ``'avg'`` or ``'max'`` over the map; ``''`` for none, without a linear layer.

    Raises:
        InputError: If ``num_classes`` or ``drop_rate`` is out of range, or there is no such pooling.

    Example:
        >>> net = create_model('ic_resnet18', pattern='geometric_d2', num_classes=10)
        >>> net(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(self, backbone: ResNet, num_classes: int = 1000, drop_rate: float = 0.0, global_pool: str = 'avg'):
        super().__init__()
        check_probability(drop_rate=drop_rate)
        self.backbone = backbone
        self.in_chans = backbone.in_channels
        self.num_features = self.head_hidden_size = backbone.out_channels[-1]
        self.feature_info = _stages_of(backbone, 'backbone.')
        self.drop_rate = drop_rate
        self.reset_classifier(num_classes, global_pool)
        register_load_state_dict_pre_hook(self, _take_flat_keys)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` -> logits ``[N, num_classes]``."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` -> the last map ``[N, num_features, h, w]``."""
        return self.backbone(x)[-1]

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Images ``[N, C, H, W]`` -> the last map and the maps of some stages, the finest first.

        Args:
            x: The images.
            indices: Stages, 0 to 3, negative ones from the end; a number n for the last n stages; all by default.
            norm: As in timm's ResNets, without effect: a stage ends with a ReLU.
            stop_early: Whether stages after the last of ``indices`` are skipped; its map is then the last.
            output_fmt: ``'NCHW'``.
            intermediates_only: Whether only the maps of the stages are returned.

        Raises:
            InputError: For a missing stage, or another format.
        """
        stages = range(len(self.feature_info))
        if output_fmt != 'NCHW':
            raise InputError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        taken = stages if indices is None else _stages('indices', indices, len(stages))
        last = taken[-1] if stop_early and taken else stages[-1]
        *maps, x = self.backbone.maps(x, {*taken, last})
        maps += [x] if last in taken else []
        return maps if intermediates_only else (x, maps)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map -> logits, or the pooled features ``[N, num_features]`` with ``pre_logits``."""
        x = F.dropout(_POOLINGS[self.global_pool](x), self.drop_rate, self.training)
        return x if pre_logits else self.head(x)

    def get_classifier(self) -> nn.Module:
        """Returns the linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the linear layer for other classes; removes it for 0, so ``forward`` returns the pooled features.

        Args:
            num_classes: Number of classes.
            global_pool: Pooling, as of the class; unchanged by default.

        Raises:
            InputError: If ``num_classes`` is not an integer of at least 0, or the pooling is unknown or has no linear
                layer.
        """
        if not isinstance(num_classes, Integral) or num_classes < 0:
            raise InputError(f'num_classes must be an integer of at least 0, got {num_classes!r}')
        global_pool = self.global_pool if global_pool is None else global_pool
        if global_pool not in _POOLINGS:
            raise InputError(f'global_pool must be one of {list(_POOLINGS)}, got {global_pool!r}')
        if num_classes and not global_pool:
            raise InputError(f"global_pool='' goes with num_classes=0, got num_classes={num_classes}")
        self.num_classes, self.global_pool = num_classes, global_pool
        like = next(self.backbone.parameters())
        options = dict(device=like.device, dtype=like.dtype)
        fc = nn.Linear(self.num_features, num_classes, **options) if num_classes else nn.Identity()
        self.head = nn.Sequential(OrderedDict(fc=fc)).train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Calls :meth:`icconv_mm.backbones.ResNet.set_grad_checkpointing`."""
        self.backbone.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Returns regular expressions of timm's groups of parameters, for layer-wise rate decay: blocks, or stages."""
        blocks = r'^backbone\.layer(\d+)' if coarse else r'^backbone\.layer(\d+)\.(\d+)'
        return dict(stem=r'^backbone\.(?!layer)', blocks=blocks)


_POOLINGS = {'avg': lambda x: x.mean((2, 3)), 'max': lambda x: x.amax((2, 3)), '': lambda x: x}


def default_cfg(name: str, size: int = 224, num_classes: int = 1000) -> dict:
    """Returns timm's description of a network: preprocessing of images, names of the first and last layer, weights."""
    kind, options = _MODELS[name]
    first = 'stem.0' if kind.endswith(('V1c', 'V1d')) else 'conv1'
    address = shipped.find_weights(name, *_TASKS)
    cells = size // (4 * prod(options.get('strides', STRIDES)))
    return dict(
        url='',
        **dict(file=str(shipped.path_of(address))) if address else {},
        architecture=name,
        num_classes=num_classes,
        input_size=(3, size, size),
        pool_size=(cells, cells),
        crop_pct=0.875,
        interpolation='bilinear',
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        first_conv=f'backbone.{first}',
        classifier='head.fc',
    )


def _take_flat_keys(_: nn.Module, state_dict: dict, prefix: str, *__) -> None:
    """A ``load_state_dict`` pre-hook: adds ``backbone.`` to keys without it, names a classifier ``head.fc``."""
    keys = {key.removeprefix(prefix): key for key in state_dict if key.startswith(prefix)}
    if any(key.startswith('backbone.') for key in keys):
        return
    for key, old in keys.items():
        value = state_dict.pop(old)
        state_dict[f'{prefix}{"head." if key.startswith("fc.") else "backbone."}{key}'] = value


def list_models(filter: str | Sequence[str] = '', pretrained: bool = False) -> list[str]:
    """Returns the names for :func:`create_model`, or those that match one or several shell patterns ('ic_resnext*').

    With ``pretrained``, those whose trained weights come with the package.

    Example:
        >>> list_models('pyconv_hg*')
        ['pyconv_hgresnet101', 'pyconv_hgresnet152', 'pyconv_hgresnet50']
    """
    filters = [filter] if isinstance(filter, str) else filter
    return sorted(
        name
        for name in _MODELS
        if (not filter or any(fnmatch(name, pattern_of_name) for pattern_of_name in filters))
        and not (pretrained and shipped.find_weights(name, *_TASKS) is None)
    )


def backbone_options(name: str) -> tuple[str, dict]:
    """Returns the class of ``icconv_mm.backbones`` of a name of :func:`list_models`, and its options."""
    return _MODELS[name]


def create_model(
    name: str,
    *,
    pattern: str | Path | Sequence | None = None,
    pretrained: bool = False,
    checkpoint_path: str | os.PathLike = '',
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    global_pool: str = 'avg',
    **options,
) -> nn.Module:
    """Creates and initialises a network of this package by its name: a classifier, or a feature extractor.

    Args:
        name: A name of :func:`list_models`.
        pattern: Dilation pattern. Names that begin with ``ic_`` need it, or ``supernet_d_max`` for the search;
            ``'small'`` and ``'small_s8'`` have one by default; others have none. See
            :func:`icconv_mm.patterns.load_pattern`.
        pretrained: Whether the network gets the weights that come with the package, which
            ``list_models(pretrained=True)`` have; the classifier gets them unless it has other classes.
        checkpoint_path: A file of weights; no code in it is run. Weights of the dense network of
            torchvision, timm or mmpretrain fit an ``ic_`` network.
        features_only: Return a list of maps, the finest first, as timm's networks do; ``feature_info`` has their
            channels and reductions.
        out_indices: Stages whose maps are returned with ``features_only``, as configs count them: 0 is the first stage,
            of stride 4, and 3 or -1 the last; a number n for the last n; all by default. timm's own ResNets, and
            :func:`from_timm`, count the stem as 0.
        num_classes: Number of classes of the classifier; 0 for pooled features; by default that of the pretrained
            classifier, else 1000. Refused, as ``drop_rate`` is, with ``features_only``.
        in_chans: Channels of the images; 3 by default.
        drop_rate: Probability of dropout before the classifier, at least 0 and below 1; 0 by default.
        global_pool: Pooling before the classifier, as of :class:`ImageClassifier`.
        **options: Arguments of the backbone's class: ``output_stride``, ``drop_path_rate``, ``norm_cfg``, ``align``,
            ... Those that the name fixes are given by the name alone.

    Raises:
        InputError: For an unknown name, a pattern for a network without one, a bool as a pattern, ``pretrained`` for a
            network without weights, or for a classifier without ``num_classes`` where they have none, options that
            ``features_only`` excludes, or weights that do not fit; and as of :class:`ImageClassifier`,
            :class:`icconv_mm.backbones.ICResNet` and the other backbones.
        TypeError: For an option given twice or unknown to the backbone's class; the message names it.

    Example:
        >>> net = create_model('ic_resnet50', pattern='geometric_d4', features_only=True, out_indices=(1, 3))
        >>> [level.shape for level in net(torch.randn(1, 3, 64, 64))], net.feature_info.reduction()
        ([torch.Size([1, 512, 8, 8]), torch.Size([1, 2048, 2, 2])], [8, 32])
    """
    if not isinstance(name, str):
        raise InputError(f'create_model: a network is named by a string, got {name!r}')
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, 3) or ['icconv_mm.list_models() lists them']
        raise InputError(f'create_model: there is no network {name!r}; near it: {", ".join(near)}')
    address = shipped.find_weights(name, *_TASKS) if pretrained else None
    if pretrained and address is None:
        raise InputError(
            f'create_model: no weights of {name} come with icconv_mm: give a file as checkpoint_path, the dense '
            f'ImageNet weights of torchvision or the published ones, converted by {command_of("convert_checkpoint")}'
        )
    if pretrained and checkpoint_path:
        raise InputError('create_model: pretrained and checkpoint_path both say which weights: give one')
    if out_indices is not None and not features_only:
        raise InputError('create_model: out_indices go with features_only=True; a classifier reads the last stage')
    if features_only:  # the defaults, and num_classes=0, ask for no classifier
        given = [f'num_classes={num_classes}'] if num_classes not in (None, 0, 1000) else []
        given += [f'drop_rate={drop_rate}'] if drop_rate else []
        given += [f'global_pool={global_pool!r}'] if global_pool not in ('', 'avg') else []
        if given:
            raise InputError(f'create_model: features_only=True gives no classifier: leave out {" and ".join(given)}')
    _refuse_bool('create_model', pattern)
    kind, defaults = _MODELS[name]
    backbone = getattr(backbones, kind)
    if issubclass(backbone, backbones.ICResNet):
        d_max = options.get('supernet_d_max')
        pattern = defaults.get('pattern') if pattern is d_max is None else pattern
        check_choice(f'create_model: {name}', pattern, d_max)
        defaults = {key: value for key, value in defaults.items() if key != 'align' or d_max is None}
        defaults['pattern'] = pattern
    elif pattern is not None:
        raise InputError(f'create_model: {name} takes no pattern, which is for the networks that begin with ic_')
    # as without a config, whatever config was built before in this process
    usual = dict(norm_eval=False, stem_channels=options.get('base_channels', 64))
    options = {key: value for key, value in usual.items() if key not in defaults} | options
    stages = options.get('num_stages', 4)
    check_positive(in_chans=in_chans, num_stages=stages)
    indices = (range(stages) if features_only else [-1]) if out_indices is None else out_indices
    indices = _stages('out_indices', indices, stages)
    network = backbone(in_channels=in_chans, out_indices=indices, **defaults, **options)
    init_weights(network)
    cfg, weights = (default_cfg(name), {}) if address is None else _pretrained(name, address)
    if features_only:
        network.output_type = list
        network.feature_info = FeatureInfo(_stages_of(network), network.out_indices)
    else:
        if num_classes is None and address is not None and 'head.fc.bias' not in weights:
            what = 'give num_classes, 0 for pooled features, or features_only=True'
            raise InputError(f'create_model: the weights of {name} that come with icconv_mm have no classifier: {what}')
        num_classes = cfg['num_classes'] if num_classes is None else num_classes
        network = ImageClassifier(network, num_classes, drop_rate, global_pool)
    network.default_cfg = network.pretrained_cfg = cfg
    if address is not None:
        _load(network, _weights_for(network, weights), address)
    if checkpoint_path:
        content = read_checkpoint(checkpoint_path)
        averaged = content.get('state_dict_ema', content.get('model_ema'))  # timm prefers these
        _load(network, content if averaged is None else averaged, str(checkpoint_path))
    return network


def _refuse_bool(function: str, pattern: object) -> None:
    if isinstance(pattern, bool):  # timm's second argument is ``pretrained``
        raise InputError(f'{function}: {pattern} is no pattern; what follows the name has a name: pretrained={pattern}')


def _pretrained(name: str, address: str) -> tuple[dict, Mapping[str, Tensor]]:
    """Returns timm's description of a network with the weights of an address, and these weights."""
    weights = reading.read(shipped.path_of(address))
    if (bias := weights.get('head.fc.bias')) is None:
        return default_cfg(name), weights
    return default_cfg(name, shipped.size_of(address), len(bias)), weights


def _weights_for(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the backbone's weights, and the classifier's, which are the network's own if it has other classes."""
    chosen = {key: value for key, value in weights.items() if key.startswith('backbone.')}
    for key, value in network.state_dict().items():
        if key.startswith('head.'):
            chosen[key] = weights[key] if key in weights and weights[key].shape == value.shape else value
    return chosen


def _load(network: nn.Module, content: Mapping, name: str) -> None:
    """Loads the content of a checkpoint into a whole network; ``name`` begins the message of an error."""
    weights = dict(state_dict_of(content))
    if isinstance(network, ImageClassifier):
        _take_flat_keys(network, weights, '')  # before the check, so its message has the network's names
    check_fits(network, weights, name)
    network.load_state_dict(weights)


def from_timm(
    name: str,
    *,
    pattern: str | Path | Sequence | None = None,
    filter: LayerFilter = None,
    supernet_d_max: int | None = None,
    align: int | None = None,
    **options,
) -> nn.Module:
    """Creates a network of timm with inception convolutions instead of its 3x3 ones, under the same keys.

    Args:
        name: A name of ``timm.list_models()``.
        pattern: An analytic name ('geometric_d4') fits any network, a published one the ResNet for which it was
            searched.
        filter: Selects convolutions, as for :func:`icconv_mm.ICBackbone`; by default all 3x3 ones outside the stem.
        supernet_d_max: Largest dilation of the search, given instead of a pattern.
        align: Channels in a block, of which the runs of the pattern are made multiples.
        **options: Arguments of ``timm.create_model``: ``pretrained``, ``features_only``, ``num_classes``, ... Its
            ``out_indices`` count as in timm: for a ResNet 0 is the stem, of stride 2, and 1 is stage 0 of
            :func:`create_model`.

    Returns:
        timm's network, an object of timm's class.

    Raises:
        MissingLibraryError: Without timm.
        InputError: For a bool as a pattern, and as of :func:`icconv_mm.ICBackbone`.

    Example:
        >>> net = from_timm('resnet18', pattern='geometric_d2', num_classes=10)  # doctest: +SKIP
        >>> net(torch.randn(1, 3, 64, 64)).shape  # doctest: +SKIP
        torch.Size([1, 10])
    """
    _refuse_bool('from_timm', pattern)
    check_choice(f'from_timm: {name}', pattern, supernet_d_max, align)
    try:
        import timm
    except ImportError as error:
        raise MissingLibraryError(f'from_timm needs timm ({error}): pip install timm') from error
    network = timm.create_model(name, **options)
    return ICBackbone(network, pattern, filter, supernet_d_max, align=align)
