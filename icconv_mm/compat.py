"""Parts of mmengine and mmcv for layers, backbones and necks, or small forms of them with torch alone.

Each library is used if it is installed, mmcv-lite as well as mmcv. Layers, backbones and necks import neither.

The small forms have the names, keys of parameters, default initialisation and random numbers of the libraries, and only
the features that this package needs. For others an error names the package to install.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from icconv_mm import versions
from icconv_mm.errors import MissingLibraryError
from icconv_mm.torch_private import has_data

__all__ = [
    'CONVOLUTIONS',
    'MODELS',
    'BaseModule',
    'ConvAWS2d',
    'ConvModule',
    'ConvWS2d',
    'DropPath',
    'ModuleList',
    'build_conv_layer',
    'build_norm_layer',
    'build_plugin_layer',
    'deform_conv_functions',
    'init_weights',
    'is_model_wrapper',
    'library_default',
]


def _needs(library: str, what: str) -> MissingLibraryError:
    return MissingLibraryError(f'{what} is a part of {library}, which is not installed: pip install {library}')


class Registry:
    """The modules that a config of this package may name, by class name."""

    def __init__(self) -> None:
        self._modules: dict[str, Callable] = {}

    def register_module(self, name: str | None = None, module: Callable | None = None) -> Callable:
        """Adds ``module`` under ``name``, its own by default; without ``module``, returns a decorator."""
        if module is None:
            return lambda args: self.register_module(name, args)
        self._modules[name or module.__name__] = module
        return module

    def build(self, cfg: dict) -> Any:
        """Builds the module of a config: calls ``type`` ('icconv_mm.Name', 'Name' or a class) with the other entries.

        Raises:
            MissingLibraryError: For a name of another package.
        """
        options = dict(cfg)
        kind = options.pop('type')
        if isinstance(kind, str):
            name = kind.removeprefix('icconv_mm.')
            if name not in self._modules:
                raise _needs(
                    'mmengine', f'type={kind!r} is no module of icconv_mm; what finds those of other libraries'
                )
            kind = self._modules[name]
        return kind(**options)


# --- small forms of mmengine: initialisation


def _set_bias(module: nn.Module, value: float) -> None:
    if getattr(module, 'bias', None) is not None:
        nn.init.constant_(module.bias, value)


def _kaiming(weight: Tensor, a=0, mode='fan_out', nonlinearity='relu', distribution='normal') -> None:
    fill = nn.init.kaiming_uniform_ if distribution == 'uniform' else nn.init.kaiming_normal_
    fill(weight, a=a, mode=mode, nonlinearity=nonlinearity)


def _xavier(weight: Tensor, gain=1, distribution='normal') -> None:
    (nn.init.xavier_uniform_ if distribution == 'uniform' else nn.init.xavier_normal_)(weight, gain=gain)


_INITIALIZERS = {'Constant': nn.init.constant_, 'Kaiming': _kaiming, 'Normal': nn.init.normal_, 'Xavier': _xavier}


def _initialize(module: nn.Module, type: str, layer: str | Sequence[str], bias: float = 0, **options) -> None:
    """Initialises the layers of certain kinds by one entry of an ``init_cfg``."""
    if type not in _INITIALIZERS:
        raise _needs('mmengine', f'init_cfg of type {type!r}')
    kinds = {layer} if isinstance(layer, str) else set(layer)
    parts: list[nn.Module] = []
    module.apply(parts.append)  # in mmengine's order, which fixes the random numbers
    for part in parts:
        if kinds & {part.__class__.__name__, *(base.__name__ for base in part.__class__.__bases__)}:
            if part.weight is not None:
                _INITIALIZERS[type](part.weight, **options)
            _set_bias(part, bias)


class BaseModule(nn.Module):
    """A module whose ``init_cfg`` tells :meth:`init_weights` how to initialise parameters.

    Args:
        init_cfg: Entries of type 'Constant', 'Kaiming', 'Normal' or 'Xavier', as in mmengine. None for torch's own
            initialisation.
    """

    def __init__(self, init_cfg: dict | list[dict] | None = None):
        super().__init__()
        self.init_cfg = copy.deepcopy(init_cfg)
        self.is_init = False

    def init_weights(self) -> None:
        """Initialises this module and children with ``init_weights``; a second call changes nothing.

        Raises:
            MissingLibraryError: For an entry of another type, such as 'Pretrained': load such a file with
                ``load_state_dict``.
        """
        if self.is_init:
            return
        cfgs = self.init_cfg or []
        for cfg in [cfgs] if isinstance(cfgs, dict) else cfgs:
            _initialize(self, **({'layer': ()} | cfg))
        for child in self.children():
            if hasattr(child, 'init_weights') and not getattr(child, 'is_init', False):
                child.init_weights()
        self.is_init = True


class ModuleList(BaseModule, nn.ModuleList):
    """An ``nn.ModuleList`` whose :meth:`init_weights` initialises its modules."""

    def __init__(self, modules: Sequence[nn.Module] = ()):
        BaseModule.__init__(self)
        nn.ModuleList.__init__(self, modules)
        self.init_cfg, self.is_init = None, False


# --- small forms of mmcv


def build_conv_layer(cfg: dict | None, *args, **options) -> nn.Module:
    """Builds a ``Conv2d`` from the arguments after ``cfg``.

    Raises:
        MissingLibraryError: If ``cfg`` names another kind.
    """
    options |= cfg or {}
    if (kind := options.pop('type', 'Conv2d')) not in ('Conv', 'Conv2d'):
        raise _needs('mmcv', f'conv_cfg of type {kind!r}')
    return nn.Conv2d(*args, **options)


def build_norm_layer(cfg: dict, num_features: int, postfix: int | str = '') -> tuple[str, nn.Module]:
    """Builds a norm of ``num_features`` channels; returns its name, 'bn' or 'gn' with ``postfix``, and the norm.

    Raises:
        MissingLibraryError: If ``cfg`` names another kind than 'BN', 'SyncBN' or 'GN'.
    """
    options = dict(cfg)
    kind, learns = options.pop('type'), options.pop('requires_grad', True)
    if kind in ('BN', 'BN2d', 'SyncBN'):
        make = nn.SyncBatchNorm if kind == 'SyncBN' else nn.BatchNorm2d
        name, layer = 'bn', make(num_features, **options)
    elif kind == 'GN':
        name, layer = 'gn', nn.GroupNorm(options.pop('num_groups'), num_features, **options)
    else:
        raise _needs('mmcv', f'norm_cfg of type {kind!r}')
    return f'{name}{postfix}', layer.requires_grad_(learns)


def build_plugin_layer(cfg: dict, postfix: int | str = '', **options) -> tuple[str, nn.Module]:
    """Raises MissingLibraryError: the plugins of blocks are mmcv's."""
    raise _needs('mmcv', f'the plugin {cfg["type"]!r}')


class DropPath(nn.Module):
    """Drops a branch for each sample with probability ``drop_prob`` while training, and scales up the others."""

    def __init__(self, drop_prob: float = 0.1):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """``[N, ...]`` -> the same shape."""
        if not self.training or self.drop_prob == 0:
            return x
        draws = torch.rand((len(x), *[1] * (x.ndim - 1)), dtype=x.dtype, device=x.device)
        return x * (draws >= self.drop_prob) / (1 - self.drop_prob)


class ConvModule(nn.Module):
    """A convolution, then optionally a norm and a ReLU.

    Args:
        in_channels, out_channels, kernel_size, stride, padding: Arguments of the convolution, which has a bias if no
            norm follows.
        norm_cfg: Config for :func:`build_norm_layer`; None for none.
        act_cfg: ``dict(type='ReLU')`` or None.

    Raises:
        MissingLibraryError: For another norm or activation.
    """

    order = ('conv', 'norm', 'act')

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = dict(type='ReLU'),  # noqa: B006
    ):
        super().__init__()
        self.with_norm, self.with_activation = norm_cfg is not None, act_cfg is not None
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=not self.with_norm)
        self.norm_name = None
        if self.with_norm:
            self.norm_name, norm = build_norm_layer(norm_cfg, out_channels)
            self.add_module(self.norm_name, norm)
        if self.with_activation:
            if act_cfg['type'] != 'ReLU':
                raise _needs('mmcv', f'act_cfg of type {act_cfg["type"]!r}')
            self.activate = nn.ReLU(inplace=True)
        self.init_weights()

    @property
    def norm(self) -> nn.Module | None:
        """Returns the norm layer, if there is one."""
        return getattr(self, self.norm_name) if self.norm_name else None

    def init_weights(self) -> None:
        """Initialises the convolution as in He et al., the norm as the identity."""
        _kaiming(self.conv.weight)
        _set_bias(self.conv, 0)
        if self.with_norm and self.norm.weight is not None:
            nn.init.ones_(self.norm.weight)
            nn.init.zeros_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``."""
        x = self.conv(x)
        x = self.norm(x) if self.with_norm else x
        return self.activate(x) if self.with_activation else x


def is_model_wrapper(model: nn.Module) -> bool:
    """Whether a model is wrapped for several devices or processes."""
    return isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))


# --- the libraries' own, if installed: these replace the small forms above

MMLogger, MODELS, library_network = None, Registry(), None
if versions.is_installed('mmengine'):
    from mmengine.logging import MMLogger
    from mmengine.model import BaseModule, ModuleList, is_model_wrapper

    from icconv_mm.registry import MODELS, library_network

ConvAWS2d = ConvWS2d = None  # a network of torch alone has no init_weights
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
if versions.is_installed('mmengine') and versions.is_installed('mmcv'):
    from mmcv import cnn
    from mmcv.cnn import ConvAWS2d, ConvModule, ConvWS2d, build_norm_layer, build_plugin_layer
    from mmcv.cnn.bricks import DropPath, wrappers

    # mmcv's equal forms of torch's layers
    CONVOLUTIONS += (wrappers.Conv2d, wrappers.ConvTranspose2d)

    def build_conv_layer(cfg: dict | None, *args, **options) -> nn.Module:
        """Calls mmcv's ``build_conv_layer``; with mmcv-lite the error for a deformable layer says what is missing."""
        if cfg and str(cfg.get('type')).startswith('DCN'):
            try:
                import mmcv.ops  # noqa: F401
            except ImportError as error:
                versions.explain_import(error, f'conv_cfg of type {cfg["type"]!r}')
                raise
        return cnn.build_conv_layer(cfg, *args, **options)


# --- for both forms


def library_default(argument: str, otherwise: Any, network: str = 'ResNet') -> Any:
    """Returns the default of an argument of the ResNet of the library whose config is under construction.

    ``otherwise`` without such a library, and if its ResNet lacks the argument or leaves it None.
    """
    value = library_network and library_network(network)
    default = inspect.signature(value).parameters.get(argument) if value else None
    return otherwise if default is None or default.default in (None, default.empty) else default.default


def init_weights(module: nn.Module) -> None:
    """Calls ``module.init_weights()`` without mmengine's long log; does nothing for parameters without data."""
    if not has_data(next(module.parameters())):
        return
    if MMLogger is None:
        module.init_weights()
        return
    log = MMLogger.get_current_instance()
    level = log.level
    log.setLevel('WARNING')
    try:
        module.init_weights()
    finally:
        log.setLevel(level)


def deform_conv_functions() -> tuple[Callable | None, Callable | None]:
    """Returns mmcv's ``deform_conv2d`` and ``modulated_deform_conv2d``; None without mmcv's compiled operators."""
    try:
        from mmcv.ops import deform_conv2d, modulated_deform_conv2d
    except ImportError:
        return None, None
    return deform_conv2d, modulated_deform_conv2d
