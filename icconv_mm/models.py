"""Networks by name, with the habits of timm; torch alone is enough."""

import difflib
import inspect
import os
from collections import OrderedDict
from collections.abc import Sequence
from fnmatch import fnmatch
from numbers import Integral
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm import backbones
from icconv_mm.backbones.resnet import ResNet
from icconv_mm.backbones.wrapper import ICBackbone
from icconv_mm.bricks import init_weights
from icconv_mm.errors import InputError, MissingLibraryError
from icconv_mm.layers.convert import check_choice
from icconv_mm.patterns.selection import LayerFilter
from icconv_mm.utils.arguments import check_positive, check_probability
from icconv_mm.utils.tool_commands import command_of
from icconv_mm.utils.torch_private import register_load_state_dict_pre_hook

__all__ = ['FeatureInfo', 'ImageClassifier', 'create_model', 'from_timm', 'list_models']

_RESNEXTS = {'50_32x4d': (50, 32, 4), '101_32x4d': (101, 32, 4), '101_32x8d': (101, 32, 8), '101_64x4d': (101, 64, 4)}
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
}


class FeatureInfo(list):
    """What is known of each map that a network of features gives: ``dict(num_chs=, reduction=, module=)``.

    Example:
        >>> info = create_model('pyconv_resnet18', features_only=True).feature_info
        >>> info.channels(), info.reduction()
        ([64, 128, 256, 512], [4, 8, 16, 32])
    """

    @classmethod
    def of(cls, network: ResNet) -> 'FeatureInfo':
        """What is known of the maps of a backbone."""
        reduction = network.stem_stride
        every = []
        for stage, channels in enumerate(network.out_channels):
            reduction *= network.stage_stride(stage)
            every.append(dict(num_chs=channels, reduction=reduction, module=f'layer{stage + 1}'))
        return cls(every[stage] for stage in sorted(network.out_indices))

    def channels(self) -> list[int]:
        """Channels of each map, the finest map first."""
        return [each['num_chs'] for each in self]

    def reduction(self) -> list[int]:
        """Pixels of the image per pixel of each map, along one side, the finest map first."""
        return [each['reduction'] for each in self]

    def module_name(self) -> list[str]:
        """The module that each map comes from."""
        return [each['module'] for each in self]


class ImageClassifier(nn.Module):
    """A backbone, the mean over the last map, and a linear layer.

    State dicts have the keys of mmpretrain, ``backbone.*`` and ``head.fc.*``; those of torchvision and timm
    (``layer1.*``, ``fc.*``) load as well.

    Args:
        backbone: A backbone that returns one map.
        num_classes: Number of outputs of the linear layer; 0 for no layer; 1000 by default.
        drop_rate: Probability of dropout before the linear layer, at least 0 and below 1; 0 by default.

    Raises:
        InputError: If ``num_classes`` or ``drop_rate`` is out of range.

    Example:
        >>> net = create_model('ic_resnet18', pattern='geometric_d2', num_classes=10)
        >>> net(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(self, backbone: ResNet, num_classes: int = 1000, drop_rate: float = 0.0):
        super().__init__()
        check_probability(drop_rate=drop_rate)
        self.backbone = backbone
        self.num_features = backbone.out_channels[-1]
        self.drop_rate = drop_rate
        self.reset_classifier(num_classes)
        register_load_state_dict_pre_hook(self, _take_flat_keys)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` -> logits ``[N, num_classes]``."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` -> the last map ``[N, num_features, h, w]``."""
        return self.backbone(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map -> logits, or the pooled features ``[N, num_features]`` with ``pre_logits``."""
        x = F.dropout(x.mean((2, 3)), self.drop_rate, self.training)
        return x if pre_logits else self.head(x)

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int) -> None:
        """A new linear layer for other classes; none for 0, so that a forward gives the pooled features.

        Raises:
            InputError: If ``num_classes`` is no integer or below 0.
        """
        if not isinstance(num_classes, Integral) or num_classes < 0:
            raise InputError(f'num_classes must be an integer of at least 0, got {num_classes!r}')
        self.num_classes = num_classes
        fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head = nn.Sequential(OrderedDict(fc=fc))


def _take_flat_keys(_: nn.Module, state_dict: dict, prefix: str, *__) -> None:
    """A ``load_state_dict`` pre-hook: keys without ``backbone.`` get it, a classifier's the name ``head.fc``."""
    own = {key.removeprefix(prefix): key for key in state_dict if key.startswith(prefix)}
    if any(key.startswith('backbone.') for key in own):
        return
    for key, old in own.items():
        value = state_dict.pop(old)
        state_dict[f'{prefix}{"head." if key.startswith("fc.") else "backbone."}{key}'] = value


def list_models(filter: str | Sequence[str] = '') -> list[str]:
    """Names that :func:`create_model` knows, those that match a shell pattern ('ic_resnext*') or one of several.

    Example:
        >>> list_models('pyconv_hg*')
        ['pyconv_hgresnet101', 'pyconv_hgresnet152', 'pyconv_hgresnet50']
    """
    filters = [filter] if isinstance(filter, str) else filter
    return sorted(name for name in _MODELS if not filter or any(fnmatch(name, each) for each in filters))


def create_model(
    name: str,
    *,
    pattern: str | Path | Sequence | None = None,
    pretrained: bool = False,
    checkpoint_path: str | os.PathLike = '',
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    num_classes: int = 1000,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    **options,
) -> nn.Module:
    """A network of this package by its name, initialised: a classifier, or the maps of its stages.

    Args:
        name: A name out of :func:`list_models`.
        pattern: Dilation pattern. Networks that begin with ``ic_`` need it, or ``supernet_d_max`` for the search;
            others take none. See :func:`icconv_mm.patterns.load_pattern`.
        pretrained: Refused where true: this package distributes no weights.
        checkpoint_path: A file of weights, which is read without running code from it. Weights of the dense network of
            torchvision, timm or mmpretrain fit an ``ic_`` network.
        features_only: Gives a tuple of maps, the finest first, as a backbone does for detection; ``feature_info`` says
            their channels and reductions.
        out_indices: Stages whose maps are returned with ``features_only``, as configs count them: 0 is the first stage,
            of stride 4, and 3 the last; all by default. timm's own ResNets, and :func:`from_timm`, count the stem as 0.
        num_classes: Number of classes of the classifier; 0 for pooled features; 1000 by default. Refused, as
            ``drop_rate`` is, with ``features_only``.
        in_chans: Channels of the images; 3 by default.
        drop_rate: Probability of dropout before the classifier, at least 0 and below 1; 0 by default.
        **options: Arguments of the backbone's class: ``output_stride``, ``drop_path_rate``, ``norm_cfg``, ...

    Raises:
        InputError: For an unknown name or option, an option that the name fixes, a pattern where there is none, a bool
            as a pattern, ``pretrained``, what ``features_only`` has no use for, or a file that does not fit; and as of
            :class:`ImageClassifier`, and of :class:`icconv_mm.backbones.ICResNet` and its kin.

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
    if pretrained:
        raise InputError(
            f'create_model: no weights of {name} come with icconv_mm: give a file as checkpoint_path, the dense '
            f'ImageNet weights of torchvision or the published ones, converted by {command_of("convert_checkpoint")}'
        )
    if out_indices is not None and not features_only:
        raise InputError('create_model: out_indices go with features_only=True; a classifier reads the last stage')
    if features_only:
        _refuse_head(num_classes, drop_rate)
    _refuse_bool('create_model', pattern)
    kind, own = _MODELS[name]
    backbone = getattr(backbones, kind)
    _check_options(name, backbone, own, options)
    if issubclass(backbone, backbones.ICResNet):
        check_choice(f'create_model: {name}', pattern, options.get('supernet_d_max'))
        own = own | dict(pattern=pattern)
    elif pattern is not None:
        raise InputError(f'create_model: {name} takes no pattern, which is for the networks that begin with ic_')
    stages = options.get('num_stages', 4)
    check_positive(in_chans=in_chans, num_stages=stages)
    indices = (range(stages) if features_only else [stages - 1]) if out_indices is None else out_indices
    network = backbone(in_channels=in_chans, out_indices=indices, **own, **options)
    init_weights(network)
    if features_only:
        network.feature_info = FeatureInfo.of(network)
    else:
        network = ImageClassifier(network, num_classes, drop_rate)
    if checkpoint_path:
        _load(network, checkpoint_path)
    return network


def _refuse_head(num_classes: int, drop_rate: float) -> None:
    """Raise InputError for arguments of a classifier other than the defaults; ``num_classes=0`` asks for none, too."""
    given = [f'num_classes={num_classes}'] if num_classes not in (0, 1000) else []
    given += [f'drop_rate={drop_rate}'] if drop_rate else []
    if given:
        raise InputError(f'create_model: features_only=True gives no classifier: leave out {" and ".join(given)}')


def _check_options(name: str, backbone: type[ResNet], own: dict, options: dict) -> None:
    """Raise InputError for options that the name fixes, that have another name here, or that there are not."""
    if 'in_channels' in options:
        raise InputError(f'create_model: in_channels is called in_chans here: in_chans={options["in_channels"]!r}')
    for option, given in options.items():
        fixed = 'base_width' if option == 'width_per_group' else option
        if fixed in own:
            raise InputError(
                f'create_model: {name} says {fixed}={own[fixed]} by its name: leave out {option}={given!r}'
            )
    known = {*inspect.signature(create_model).parameters, *_arguments_of(backbone)} - {'name', 'options', 'in_channels'}
    for option in (each for each in options if each not in known):
        near = difflib.get_close_matches(option, known - own.keys(), 1)
        hint = f'did you mean {near[0]!r}?' if near else f'it has those of icconv_mm.{backbone.__name__}'
        raise InputError(f'create_model: {name} has no option {option!r}; {hint}')


def _arguments_of(backbone: type[ResNet]) -> set[str]:
    """The names of the arguments of a backbone's class, each of which hands on what it does not know."""
    inits = [
        vars(base)['__init__'] for base in backbone.__mro__ if issubclass(base, ResNet) and '__init__' in vars(base)
    ]
    parameters = [each for init in inits for each in inspect.signature(init).parameters.values()]
    return {each.name for each in parameters if each.kind != inspect.Parameter.VAR_KEYWORD} - {'self'}


def _refuse_bool(function: str, pattern: object) -> None:
    if isinstance(pattern, bool):  # timm's second argument is ``pretrained``
        raise InputError(f'{function}: {pattern} is no pattern; what follows the name has a name: pretrained={pattern}')


def _load(network: nn.Module, path: str | os.PathLike) -> None:
    from icconv_mm.checkpoints.files import read_checkpoint
    from icconv_mm.checkpoints.matching import check_fits, state_dict_of

    weights = dict(state_dict_of(read_checkpoint(path)))
    if isinstance(network, ImageClassifier):
        _take_flat_keys(network, weights, '')  # before the check, whose message then has the names of the network
    check_fits(network, weights, str(path))
    network.load_state_dict(weights)


def from_timm(
    name: str,
    *,
    pattern: str | Path | Sequence | None = None,
    filter: LayerFilter = None,
    supernet_d_max: int | None = None,
    **options,
) -> nn.Module:
    """A network of timm with inception convolutions in the place of its 3x3 ones, under the same keys.

    Args:
        name: A name of ``timm.list_models()``.
        pattern: An analytic name ('geometric_d4') fits any network, a published one the ResNet that it was found on.
        filter: Selects convolutions, as for :func:`icconv_mm.ICBackbone`; by default all 3x3 ones outside the stem.
        supernet_d_max: Largest dilation of the search, given instead of a pattern.
        **options: Arguments of ``timm.create_model``: ``pretrained``, ``features_only``, ``num_classes``, ... Its
            ``out_indices`` count as timm's do: of a ResNet 0 is the stem, of stride 2, and 1 what :func:`create_model`
            calls 0.

    Returns:
        timm's network, an object of its own class.

    Raises:
        MissingLibraryError: Without timm.
        InputError: For a bool as a pattern, and as of :func:`icconv_mm.ICBackbone`.

    Example:
        >>> net = from_timm('resnet18', pattern='geometric_d2', num_classes=10)  # doctest: +SKIP
        >>> net(torch.randn(1, 3, 64, 64)).shape  # doctest: +SKIP
        torch.Size([1, 10])
    """
    _refuse_bool('from_timm', pattern)
    check_choice(f'from_timm: {name}', pattern, supernet_d_max)
    try:
        import timm
    except ImportError as error:
        raise MissingLibraryError(f'from_timm needs timm ({error}): pip install timm') from error
    network = timm.create_model(name, **options)
    return ICBackbone(network, pattern, filter, supernet_d_max)
