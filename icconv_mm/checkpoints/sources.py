"""Conversion of released checkpoints: one converter per source repository, found by name."""

import inspect
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from icconv_mm.checkpoints.conversion import Conversion, UnmatchedKeysError, unwrap
from icconv_mm.checkpoints.detectron import convert_detectron
from icconv_mm.checkpoints.ic_conv import convert_ic_conv
from icconv_mm.checkpoints.mmpose import convert_mmpose
from icconv_mm.checkpoints.pyconv import convert_pyconv, convert_pyconvsegnet
from icconv_mm.checkpoints.rules import RenameRule
from icconv_mm.checkpoints.sepc import convert_sepc
from icconv_mm.errors import InputError

# Name of a source -> its converter, which takes (conversion, rules, **options) and leaves there what it does not know.
SOURCES: dict[str, Callable[..., None]] = {
    'ic-conv': convert_ic_conv,
    'pyconv': convert_pyconv,
    'pyconvsegnet': convert_pyconvsegnet,
    'sepc': convert_sepc,
    'detectron': convert_detectron,
    'mmpose': convert_mmpose,
}


def convert(
    state_dict: Mapping,
    source: str,
    *,
    rules: Sequence[RenameRule] = (),
    allow_unmatched: bool = False,
    **options,
) -> dict[str, Tensor]:
    """Convert a released checkpoint to the keys of this package.

    Backbone keys come out under ``backbone.``, a classifier under ``head.fc.``, other heads under the names of the task
    library's current version. Tensors keep their dtype; none is changed except as the source's module says.

    Args:
        state_dict: The weights, or a checkpoint that wraps them (``state_dict``, ``module.``, beside optimiser states).
        source: The repository that released the file: a key of :data:`SOURCES`.
        rules: Rename rules for keys that the converter does not know.
        allow_unmatched: Leave out keys that have no place instead of refusing them.
        options: Further arguments of the source's converter.

    Raises:
        UnmatchedKeysError: Keys have no place and ``allow_unmatched`` is False.
        ValueError: Unknown source, an option that it does not have, or the file is not what the source releases.
    """
    return run_conversion(state_dict, source, rules=rules, allow_unmatched=allow_unmatched, **options).state_dict


def run_conversion(
    state_dict: Mapping,
    source: str,
    *,
    rules: Sequence[RenameRule] = (),
    allow_unmatched: bool = False,
    **options,
) -> Conversion:
    """Like :func:`convert`, but returns the :class:`Conversion`, which says what became of every key."""
    if source not in SOURCES:
        raise InputError(f'unknown source {source!r}; known: {", ".join(SOURCES)}')
    unknown = sorted(set(options) - set(inspect.signature(SOURCES[source]).parameters))
    if unknown:
        raise InputError(f'the source {source!r} has no option {", ".join(unknown)}')
    conversion = Conversion(unwrap(state_dict))
    SOURCES[source](conversion, rules, **options)
    if conversion.left and not allow_unmatched:
        raise UnmatchedKeysError(conversion)
    return conversion
