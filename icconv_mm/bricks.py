"""What layers, backbones and necks are built of: mmengine's and mmcv's parts, or small ones of torch alone.

Each library is taken where it is installed, mmcv-lite as well as mmcv. Layers, backbones and necks import neither.
"""

from torch import Tensor, nn

from icconv_mm import versions
from icconv_mm.errors import MissingLibraryError
from icconv_mm.utils import task_folders

if versions.is_installed('mmengine'):
    from mmengine.logging import MMLogger
    from mmengine.model import BaseModule, ModuleList, is_model_wrapper
    from mmengine.registry import DefaultScope

    from icconv_mm.registry import MODELS
else:
    from icconv_mm._torch_only import BaseModule, ModuleList, Registry, is_model_wrapper

    DefaultScope, MMLogger, MODELS = None, None, Registry()

if versions.is_installed('mmengine') and versions.is_installed('mmcv'):
    from mmcv import cnn
    from mmcv.cnn import ConvAWS2d, ConvModule, ConvWS2d, build_norm_layer, build_plugin_layer
    from mmcv.cnn.bricks import DropPath, wrappers

    # mmcv's forms of torch's layers, which do the same
    CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, wrappers.Conv2d, wrappers.ConvTranspose2d)

    def build_conv_layer(cfg: dict | None, *args, **options) -> nn.Module:
        """mmcv's ``build_conv_layer``; says what is missing where a deformable one is asked of mmcv-lite."""
        if cfg and str(cfg.get('type')).startswith('DCN'):
            require_operators(f'conv_cfg of type {cfg["type"]!r}')
        return cnn.build_conv_layer(cfg, *args, **options)
else:
    from icconv_mm._torch_only import ConvModule, DropPath, build_conv_layer, build_norm_layer, build_plugin_layer

    ConvAWS2d = ConvWS2d = None  # a network of torch alone has none
    CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)

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
    'deform_conv2d',
    'expects_one_map',
    'init_weights',
    'is_model_wrapper',
    'require_operators',
]


def expects_one_map() -> bool:
    """Whether a config is being built of a library whose backbones return one map (``task_folders.ONE_MAP``)."""
    scope = DefaultScope and DefaultScope.get_current_instance()
    return bool(scope) and scope.scope_name in task_folders.ONE_MAP


def init_weights(module: nn.Module) -> None:
    """``module.init_weights()``, without the page about it that mmengine logs."""
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


def deform_conv2d(*args) -> Tensor:
    """mmcv's function of this name, which only mmcv with its compiled operators has."""
    from mmcv.ops.deform_conv import deform_conv2d as run

    return run(*args)


def require_operators(what: str) -> None:
    """Raise MissingLibraryError unless mmcv is here with its compiled operators; ``what`` needs them."""
    try:
        import mmcv.ops.deform_conv  # noqa: F401
    except ImportError as error:
        raise MissingLibraryError(
            f'{what} needs the compiled operators of mmcv, which mmcv-lite lacks ({error}): install mmcv in its place'
        ) from None
