"""Options of the command line that a config cannot take, or that could not change anything."""

import difflib
import functools
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from icconv_mm.errors import ArgumentError
from icconv_mm.registry import SCOPE
from icconv_mm.tasks.libraries import scope_of
from icconv_mm.utils.config_tree import entries, places_in
from icconv_mm.versions import SUPPORTED

# What a runner reads of its config beside the arguments of its constructor: ``self.cfg.get('compile')``.
_READ = re.compile(r"""self\.cfg(?:\.get\(\s*|\[)['"](\w+)['"]""")
_SHOWN = 3  # places that an error names


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Raise ArgumentError for an option that the config does not have and that looks like a mistake.

    New keys are fine below a dict with a ``type`` (its constructor knows better) and for what the runner reads. At the
    top level anything else is refused: a new key, and a variable of the config files (``backbone``, ``data_root``),
    whose value went into other keys when the files were read. A key that resembles an existing one is refused at any
    level.
    """
    if not options:
        return
    read = _read_keys(cfg)
    for option in options:
        node = cfg._cfg_dict
        for depth, key in enumerate(option.split('.')):
            known = entries(node)
            if key in known:
                if depth == 0 and key not in read and not _has_readers_of_its_own(cfg):
                    raise ArgumentError('options', f'{option}: {_variable(cfg, option, read)}')
                node = known[key]
                continue
            if depth == 0 and key in read:
                break
            if close := difflib.get_close_matches(key, [*known] if depth else [*known, *read], n=1, cutoff=0.85):
                meant = f'no such key {key!r} in the config; did you mean {close[0]!r}?'
                raise ArgumentError('options', f'{option}: {meant}')
            if depth == 0:
                unread = f'the config has no {key!r}, and it is no argument of the runner'
                raise ArgumentError('options', f'{option}: {unread}')
            break


def _read_keys(cfg: Config) -> list[str]:
    """The top-level keys that have an effect: what the config's runner and the tools read."""
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    from icconv_mm.tasks.base import TTA_KEYS

    kind = cfg.get('runner_type')
    runner = kind if isinstance(kind, type) else (kind and RUNNERS.get(kind)) or Runner
    return ['runner_type', *TTA_KEYS, *_read_by(runner)]


@functools.cache
def _read_by(runner: type) -> list[str]:
    arguments = [name for name in inspect.signature(runner.__init__).parameters if name not in ('self', 'cfg')]
    sources = [inspect.getsource(base) for base in runner.__mro__[:-1]]
    return list(dict.fromkeys([*arguments, *(key for source in sources for key in _READ.findall(source))]))


def _has_readers_of_its_own(cfg: Config) -> bool:
    """Whether the config brings modules of neither this package nor a library of OpenMMLab: they may read any key."""
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    names = [imports] if isinstance(imports, str) else imports
    packages = {name.split('.')[0] for name in (*names, scope_of(cfg) or SCOPE)}
    return bool(packages - {SCOPE, *SUPPORTED})


def _variable(cfg: Config, option: str, read: Sequence[str]) -> str:
    """Why an option does nothing, and which keys hold the value that it would change."""
    key, dot, rest = option.partition('.')
    value = cfg._cfg_dict[key]
    places = [(place, found) for name in read if name in cfg for place, found in places_in(cfg._cfg_dict[name], name)]
    held = [place for place, _ in places if place.split('.')[-1] == key]
    if not held and not isinstance(value, bool) and value not in (None, [], {}):  # found everywhere
        held = [place for place, found in places if _holds(found, value)]
    message = f'{key!r} has an effect only inside the config files'
    if not held:
        return message
    more = f' and {len(held) - _SHOWN} more' if len(held) > _SHOWN else ''
    return f'{message}; change {", ".join(place + dot + rest for place in held[:_SHOWN])}{more} instead'


def _holds(found: Any, value: Any) -> bool:
    """Whether the value of a variable has likely gone into a place; mmengine adds a scope to variables of libraries."""
    if isinstance(value, Mapping) and isinstance(found, Mapping):
        return all(key in found and _holds(found[key], each) for key, each in value.items() if key != '_scope_')
    if isinstance(value, list) and isinstance(found, list):
        return len(found) == len(value) and all(map(_holds, found, value))
    return type(found) is type(value) and found == value
