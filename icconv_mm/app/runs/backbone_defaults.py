"""What a config leaves to the defaults of this package's backbones, written into the config.

They follow the library whose config is changed (:func:`icconv_mm.compat.library_default`); in the first versions they
were the same for all. A config in a run's folder names them, so that it means the same in any version.
"""

from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import DefaultScope

from icconv_mm.config_tree import kind_of, walk_dicts
from icconv_mm.registry import SCOPE


def _own_backbones(cfg: Config) -> Iterator[dict]:
    """Yields the configs of this package's ResNets in a model."""
    from icconv_mm import backbones  # which the help of a tool does not need

    for node in walk_dicts(cfg.get('model')):
        kind = getattr(backbones, kind_of(node), None)
        is_own = str(node.get('type')).startswith(f'{SCOPE}.') or node.get('type') is kind
        if is_own and isinstance(kind, type) and issubclass(kind, backbones.ResNet):
            yield node


def keep_former_defaults(cfg: Config) -> None:
    """Writes the former defaults into a config that ``icconv train`` of a version without library defaults wrote.

    Such are the configs for one's own images and the copies in the folders of runs; those of later versions have the
    entry ``norm_eval``.
    """
    hooks = cfg.get('default_hooks') or {}
    annotations, checkpoint = (kind_of(hooks.get(name) or {}) for name in ('annotations', 'checkpoint'))
    is_copy = 'launcher' in cfg and checkpoint == 'AtomicCheckpointHook'  # set by the training
    if annotations != 'CopyAnnotationsHook' and not is_copy:
        return
    for node in _own_backbones(cfg):
        if 'norm_eval' not in node:
            node['norm_eval'] = False
            node.setdefault('stem_channels', node.get('base_channels', 64))
            if kind_of(node) == 'ICResNeXt':
                node.setdefault('groups', 32)


def write_defaults(cfg: Config) -> None:
    """Writes the defaults that a config has now into the config of a training."""
    from icconv_mm.compat import library_default

    for node in _own_backbones(cfg):
        with DefaultScope.overwrite_default_scope(node.get('_scope_') or cfg.get('default_scope') or 'mmengine'):
            node.setdefault('norm_eval', library_default('norm_eval', False))
            node.setdefault('stem_channels', library_default('stem_channels', node.get('base_channels', 64)))
            if kind_of(node) == 'ICResNeXt':
                node.setdefault('groups', library_default('groups', 32, 'ResNeXt'))
