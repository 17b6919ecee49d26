"""Conversion of released checkpoints: the sources by name, and which key went where and which is left."""

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from icconv_mm.checkpoints.matching import state_dict_of
from icconv_mm.checkpoints.rules import RenameRule
from icconv_mm.errors import InputError, require_known

PARAM = r'(?:weight|bias|running_mean|running_var|num_batches_tracked)'  # of a convolution or a norm

# Name of a source -> its converter, which takes (conversion, rules, **options) and leaves there what it does not know.
SOURCES: dict[str, Callable[..., None]] = {}


def register_source(name: str) -> Callable[[Callable], Callable]:
    """Register a converter as that of the source ``name``."""
    return lambda converter: SOURCES.setdefault(name, converter)


def convert(
    state_dict: Mapping, source: str, *, rules: Sequence[RenameRule] = (), allow_unmatched: bool = False, **options
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
        InputError: Unknown source, an option that it does not have, or the file is not what the source releases.
    """
    return run_conversion(state_dict, source, rules, allow_unmatched, **options).state_dict


def run_conversion(
    state_dict: Mapping, source: str, rules: Sequence[RenameRule] = (), allow_unmatched: bool = False, **options
) -> 'Conversion':
    """Like :func:`convert`, but returns the :class:`Conversion`, which says what became of every key."""
    require_known([source], SOURCES, 'no source')
    if unknown := sorted(set(options) - set(inspect.signature(SOURCES[source]).parameters)):
        raise InputError(f'the source {source!r} has no option {", ".join(unknown)}')
    conversion = Conversion(checked_weights(state_dict))
    SOURCES[source](conversion, rules, **options)
    if conversion.left and not allow_unmatched:
        raise UnmatchedKeysError(conversion)
    return conversion


class UnmatchedKeysError(InputError):
    """Keys of a checkpoint have no place in the converted one; ``conversion`` says which."""

    def __init__(self, conversion: 'Conversion'):
        groups = group_keys(conversion.left)
        shown = ', '.join(f'{name} ({count})' for name, count in groups[:8])
        more = f' and {len(groups) - 8} more groups' if len(groups) > 8 else ''
        super().__init__(
            f'{len(conversion.left)} keys of a file of layout {conversion.layout!r} have no place in the converted '
            f'one: {shown}{more}; give rename rules for them or allow them to be left out'
        )
        self.conversion = conversion


@dataclass(frozen=True)
class Move:
    """What became of some keys: joined, renamed, reordered or dropped (``new`` is None)."""

    old: tuple[str, ...]
    new: str | None
    how: str


class Conversion:
    """A conversion under way. A source's converter takes tensors from ``left`` and puts them into ``state_dict``.

    Attributes:
        left: The tensors that have no place yet, by their old key.
        state_dict: The converted tensors by their new key.
        moves: One entry per key that is no longer in ``left``, in order: what became of it.
        layout: Name of the framework whose layout the converter recognised.
    """

    def __init__(self, tensors: Mapping[str, Tensor]):
        self.left: dict[str, Tensor] = dict(tensors)
        self.state_dict: dict[str, Tensor] = {}
        self.moves: list[Move] = []
        self.layout = 'unknown'
        self._origin: dict[str, str] = {}  # name in the file of a key that rules renamed

    def matching(self, expression: re.Pattern | str) -> list[str]:
        """The keys that are left and match a regular expression as a whole."""
        return [key for key in self.left if re.fullmatch(expression, key)]

    def place(self, old: str | Iterable[str], new: str, tensor: Tensor | None = None, how: str = 'renamed') -> None:
        """Put ``tensor`` (by default the one of key ``old``, as it is) under the key ``new``."""
        old = (old,) if isinstance(old, str) else tuple(old)
        if new in self.state_dict:
            raise InputError(f'{", ".join(old)} would overwrite {new}, which another key of the file already became')
        values = [self.left.pop(key) for key in old]
        if tensor is None:
            (tensor,) = values
        names = tuple(self._origin.get(key, key) for key in old)
        self.state_dict[new] = tensor
        self.moves.append(Move(names, new, 'kept' if names == (new,) and how == 'renamed' else how))

    def drop(self, old: str, how: str) -> None:
        """Leave the key ``old`` out of the converted file."""
        del self.left[old]
        self.moves.append(Move((self._origin.get(old, old),), None, how))

    def place_all(self, expression: re.Pattern | str, new: str = r'\g<0>') -> list[str]:
        """Place every key that an expression matches under ``new``, a template of its groups; returns the old keys."""
        keys = self.matching(expression)
        for key in keys:
            self.place(key, re.fullmatch(expression, key).expand(new))
        return keys

    def rename_left(self, rules: Iterable[RenameRule]) -> None:
        """Rename what is left by the first rule that speaks of it, before any layout is recognised.

        The renamed keys stay in ``left``: rules that yield the names of mmdet 1.x (``bbox_head.fc_cls``, background
        first) get the class order changed as in a file of mmdet 1.x; rules that yield today's names
        (``roi_head.bbox_head.fc_cls``, background last) do not.
        """
        renamed: dict[str, str] = {}
        for old in list(self.left):
            rule = next((rule for rule in rules if rule.matches(old)), None)
            if rule is not None and rule.replace is None:
                self.drop(old, 'dropped by a rule')
                continue
            new = rule.rename(old) if rule else old
            if new in renamed:
                raise InputError(f'{old} would be renamed to {new}, which {renamed[new]} is called already')
            renamed[new] = old
        self._origin = {new: self._origin.get(old, old) for new, old in renamed.items()}
        self.left = {new: self.left[old] for new, old in renamed.items()}


def checked_weights(checkpoint: Mapping) -> dict[str, Tensor]:
    """The weights of a checkpoint by key (:func:`state_dict_of`), of a file from anywhere: checked to be weights.

    Raises:
        InputError: There is no tensor, something else than tensors lies among them, or a tensor is not finite.
    """
    tensors = state_dict_of(checkpoint)
    foreign = [key for key, value in tensors.items() if not isinstance(value, Tensor)]
    if len(foreign) == len(tensors):
        raise InputError(f'no weights found: the file holds {", ".join(map(repr, tensors)) or "nothing"}')
    if foreign:
        kinds = ', '.join(f'{key!r} ({type(tensors[key]).__name__})' for key in foreign[:5])
        raise InputError(f'{len(foreign)} entries among the weights are not tensors: {kinds}')
    for key, value in tensors.items():
        if value.is_floating_point() and not (finite := torch.isfinite(value)).all():
            raise InputError(f'{key} has {int((~finite).sum())} of {value.numel()} values that are NaN or infinite')
    return dict(tensors)


def mask_numbers(key: str) -> str:
    """``'layer1.0.bn2.weight'`` -> ``'layer*.*.bn2.weight'``: keys that differ by indices only look the same."""
    return re.sub(r'(?:(?<=layer)|(?<![A-Za-z0-9]))\d+', '*', key)


def group_keys(keys: Iterable[str]) -> list[tuple[str, int]]:
    """Keys with their indices masked, and how many there are of each, in order of appearance."""
    return list(Counter(map(mask_numbers, keys)).items())
