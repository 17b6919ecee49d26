"""What a config leaves to the defaults of this package's backbones, written into the config.

They follow the library whose config is changed (:func:`icconv_mm.compat.library_default`); in the first versions they
were the same for all. A config in a run's folder names them, so that it means the same in any version.
"""

from collections.abc import Iterator, Sequence

from mmengine.registry import DefaultScope

from icconv_mm.config_tree import Node
from icconv_mm.registry import SCOPE


def _own_backbones(nodes: Sequence[Node]) -> Iterator[tuple[Node, type]]:
    """Yields the configs of this package's ResNets in a model, and their classes."""
    from icconv_mm import backbones  # which the help of a tool does not need

    for node in nodes:
        kind = getattr(backbones, node.kind, None) if node.part == 'model' else None
        is_own = str(node.cfg.get('type')).startswith(f'{SCOPE}.') or node.cfg.get('type') is kind
        if is_own and isinstance(kind, type) and issubclass(kind, backbones.ResNet):
            yield node, kind


def keep_former_defaults(nodes: Sequence[Node]) -> None:
    """Writes the former defaults into a config that ``icconv train`` of a version without library defaults wrote.

    Such are the configs for one's own images and the copies in the folders of runs; those of later versions have the
    entry ``norm_eval``.

    Args:
        nodes: All dicts of the config.
    """
    hooks = {node.location: node.kind for node in nodes if node.part == 'default_hooks'}
    is_copy = 'launcher' in nodes[0].cfg and hooks.get('default_hooks.checkpoint') == 'AtomicCheckpointHook'
    if hooks.get('default_hooks.annotations') != 'CopyAnnotationsHook' and not is_copy:
        return
    for node, kind in _own_backbones(nodes):
        if 'norm_eval' not in node.cfg:
            node.cfg['norm_eval'] = False
            node.cfg.setdefault('stem_channels', node.cfg.get('base_channels', 64))
            for name, (default, _) in kind.library_options.items():
                node.cfg.setdefault(name, default)


def write_defaults(nodes: Sequence[Node]) -> None:
    """Writes the defaults that a config has now into the config of a training, given by all its dicts."""
    from icconv_mm.compat import library_default

    for node, kind in _own_backbones(nodes):
        settings, scope = node.cfg, node.cfg.get('_scope_') or nodes[0].cfg.get('default_scope') or 'mmengine'
        with DefaultScope.overwrite_default_scope(scope):
            settings.setdefault('norm_eval', library_default('norm_eval', False))
            settings.setdefault('stem_channels', library_default('stem_channels', settings.get('base_channels', 64)))
            for name, (default, network) in kind.library_options.items():
                settings.setdefault(name, library_default(name, default, network))
