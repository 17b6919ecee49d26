"""Bookkeeping of a checkpoint conversion: which key went where, and which is left."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from icconv_mm.checkpoints.matching import state_dict_of
from icconv_mm.errors import InputError


class UnmatchedKeysError(InputError):
    """Keys of a checkpoint have no place in the converted one; ``conversion`` says which."""

    def __init__(self, conversion: 'Conversion'):
        groups = group(conversion.left)
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
        moves: What became of every key that is no longer in ``left``, in order.
        layout: Which framework's layout the converter recognised.
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

    def rename_left(self, names: Mapping[str, str]) -> None:
        """Give keys that are left other names (``names``: old to new) before they find their place."""
        renamed: dict[str, str] = {}
        for old in self.left:
            new = names.get(old, old)
            if new in renamed:
                raise InputError(f'{old} would be renamed to {new}, which {renamed[new]} is called already')
            renamed[new] = old
        self._origin = {new: self._origin.get(old, old) for new, old in renamed.items()}
        self.left = {new: self.left[old] for new, old in renamed.items()}


def unwrap(checkpoint: Mapping) -> dict[str, Tensor]:
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
    _check_finite(tensors)
    return dict(tensors)


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    for key, value in tensors.items():
        if value.is_floating_point() and not (finite := torch.isfinite(value)).all():
            raise InputError(f'{key} has {int((~finite).sum())} of {value.numel()} values that are NaN or infinite')


def mask_numbers(key: str) -> str:
    """``'layer1.0.bn2.weight'`` -> ``'layer*.*.bn2.weight'``: keys that differ by indices only look the same."""
    return re.sub(r'(?:(?<=layer)|(?<![A-Za-z0-9]))\d+', '*', key)


def group(keys: Iterable[str]) -> list[tuple[str, int]]:
    """Keys with their indices masked, and how many there are of each, in order of appearance."""
    return list(Counter(map(mask_numbers, keys)).items())
