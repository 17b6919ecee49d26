"""Converts released checkpoints: the sources by name, the conversion of each key, and the user's rename rules."""

import hashlib
import inspect
import json
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from icconv_mm._version import __version__
from icconv_mm.arguments import require_known
from icconv_mm.checkpoints import reading, safetensors
from icconv_mm.checkpoints.alignment import AlignedLayer, align_weights
from icconv_mm.checkpoints.matching import check_fits, float_array, state_dict_of
from icconv_mm.checkpoints.metadata import class_names
from icconv_mm.errors import InputError, naming
from icconv_mm.files import atomic_write, read_small
from icconv_mm.patterns import write_patterns
from icconv_mm_runtime.finite import is_finite

PARAM = r'(?:weight|bias|running_mean|running_var|num_batches_tracked)'  # of a convolution or a norm layer
_REPEATED_GROUP = re.compile(r'(?<!\\)\)[*+{]')


@dataclass(frozen=True)
class RenameRule:
    """Renames the keys that ``pattern`` (a regular expression) matches in full; ``replace=None`` leaves them out.

    Raises:
        InputError: The pattern is no regular expression, refers to a missing group, or repeats a group: ``(a+)+b`` can
            take practically for ever.
    """

    pattern: str
    replace: str | None

    def __post_init__(self) -> None:
        if _REPEATED_GROUP.search(self.pattern):
            raise InputError(f'rename rule {self.pattern!r}: a group must not be repeated, as this may take for ever')
        try:
            re.compile(self.pattern).sub(self.replace or '', '')  # a bad group reference fails here, not halfway
            f'{self.pattern}{self.replace}'.encode()  # raises for lone surrogates, which JSON may hold
        except (re.error, IndexError, ValueError, OverflowError, RecursionError) as error:
            raise InputError(f'rename rule {self.pattern!r} -> {self.replace!r}: {error}') from None

    def matches(self, key: str) -> bool:
        """Returns whether the rule matches ``key``."""
        return re.fullmatch(self.pattern, key) is not None

    def rename(self, key: str) -> str:
        """Returns the new name of a key that the rule matches."""
        return re.fullmatch(self.pattern, key).expand(self.replace)


def load_rules(path: str | Path) -> list[RenameRule]:
    r"""Reads rename rules from a JSON or YAML file: a list of ``{"pattern": REGEX, "replace": KEY or null}``.

    ``replace`` may refer to groups of the pattern: ``neck\.p(\d)\.(.*)`` -> ``neck.fpn_convs.\1.conv.\2``.

    Raises:
        MissingFileError, InputError: The file is missing or malformed; the message names the file and the entry.
    """
    path = Path(path)
    import yaml  # needed here only

    content = read_small(path, 'file of rename rules')
    try:
        entries = json.loads(content) if path.suffix == '.json' else yaml.safe_load(content.decode())
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f'{path}: not a {"JSON" if path.suffix == ".json" else "YAML"} file: {error}') from None
    if not isinstance(entries, list):
        raise InputError(f'{path}: expected a list of {{pattern, replace}}, found {type(entries).__name__}')
    rules = []
    for index, entry in enumerate(entries):
        with naming(f'{path}: rule {index}'):
            if not isinstance(entry, dict) or set(entry) != {'pattern', 'replace'}:
                raise InputError(f'expected the fields pattern and replace, found {reprlib.repr(entry)}')
            if not isinstance(entry['pattern'], str) or not isinstance(entry['replace'], (str, type(None))):
                raise InputError(f'pattern must be text, replace text or null, found {reprlib.repr(entry)}')
            rules.append(RenameRule(**entry))
    return rules


OWN = 'icconv-mm'  # the source of this package's own files
# Name of a source -> its converter, called with (conversion, rules, **options); unknown keys stay in the conversion.
SOURCES: dict[str, Callable[..., None]] = {}


def register_source(name: str) -> Callable[[Callable], Callable]:
    """Registers a converter for the source ``name``.

    It is a function of a :class:`Conversion`, in which keys that it cannot convert stay, of the user's rename rules for
    keys that it does not know, and of options.
    """
    return lambda converter: SOURCES.setdefault(name, converter)


def convert(
    state_dict: Mapping, source: str, *, rules: Sequence[RenameRule] = (), allow_unmatched: bool = False, **options
) -> dict[str, Tensor]:
    """Converts a released checkpoint to the keys of this package.

    Backbone keys are placed under ``backbone.``, a classifier under ``head.fc.``, other heads under the names of the
    task library's current version. Tensors keep their dtype; values change only as the source's module documents.

    Args:
        state_dict: The weights, or a checkpoint that wraps them (``state_dict``, ``module.``, with optimiser states).
        source: The repository that released the file: a key of :data:`SOURCES`.
        rules: Rename rules for keys that the converter does not know.
        allow_unmatched: Whether to leave out keys that cannot be converted instead of raising an error.
        options: Further arguments of the source's converter.

    Raises:
        UnmatchedKeysError: Keys cannot be converted and ``allow_unmatched`` is False.
        InputError: The source is unknown, has no such option, or did not release such a file.
    """
    return run_conversion(state_dict, source, rules, allow_unmatched, **options).state_dict


def run_conversion(
    state_dict: Mapping, source: str, rules: Sequence[RenameRule] = (), allow_unmatched: bool = False, **options
) -> 'Conversion':
    """Converts a checkpoint like :func:`convert`, but returns the :class:`Conversion`, which records each key."""
    require_known([source], SOURCES, 'no source')
    if unknown := sorted(set(options) - set(inspect.signature(SOURCES[source]).parameters)):
        raise InputError(f'the source {source!r} has no option {", ".join(unknown)}')
    conversion = Conversion(checked_weights(state_dict))
    SOURCES[source](conversion, rules, **options)
    if conversion.left and not allow_unmatched:
        raise UnmatchedKeysError(conversion)
    return conversion


def convert_file(
    path: str | Path,
    out: str | Path,
    source: str,
    *,
    weights: str | None = None,
    model: nn.Module | None = None,
    align: int | None = None,
    **options,
) -> 'Conversion':
    """Converts the checkpoint ``path`` and writes ``out``; writes nothing if the conversion fails.

    The written file holds ``state_dict`` and ``meta``. ``meta['converted_from']`` records the source, the recognised
    layout, and the name and SHA-256 of the input; class names of the input (``meta['CLASSES']``) become
    ``meta['dataset_meta']``, which current inferencers read.

    Args:
        path: The released file; reading it runs no code.
        out: The file to write; an existing one is replaced.
        weights: The entry of the file to convert if it holds several networks, such as ``'ema'``.
        model: The network that the converted weights must fit, if known.
        align: Channels in a block, such as 32: filters move to a near dilation until each dilation of a layer has whole
            blocks, see :func:`icconv_mm.checkpoints.alignment.align_weights`. The new pattern is written beside ``out``
            with the suffix ``.json``. It needs the option ``pattern``, that of the weights.
        source, options: The arguments of :func:`icconv_mm.checkpoints.convert`.

    Raises:
        MissingFileError, InputError: As :func:`read_checkpoint` and :func:`icconv_mm.checkpoints.convert`.
        ArchitectureMismatchError: The converted weights do not fit ``model``.
    """
    path, out = Path(path), Path(out)
    checkpoint = read_checkpoint(path)
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    if 'converted_from' in meta and source != OWN:
        origin = meta['converted_from'] if isinstance(meta['converted_from'], Mapping) else {}
        file, name, digest = (origin.get(key, 'unknown') for key in ('file', 'source', 'sha256'))
        raise InputError(f'{path}: converted already, from {file} (source {name}, sha256 {digest}); it loads as it is')
    with naming(str(path)):
        classes = class_names(meta.get('CLASSES'), 'meta.CLASSES')
        if align is not None and 'pattern' not in options:
            raise InputError('align needs the pattern of the weights, which the file does not contain')
        conversion = run_conversion(_network_in(checkpoint, weights), source, **options)
    if model is not None:
        check_fits(model, conversion.state_dict, f'{path}, converted,')
    if align is not None:
        with naming(str(path)):
            conversion.align(options['pattern'], align, model)
    new_meta = {
        'converted_from': dict(source=source, layout=conversion.layout, file=path.name, sha256=sha256(path)),
        'icconv_mm_version': __version__,
    }
    if classes:
        new_meta['dataset_meta'] = {'classes': classes}
    if source == OWN and 'dataset_meta' in meta:
        new_meta['dataset_meta'] = meta['dataset_meta']
    if align is not None:
        new_meta['aligned'] = align
        write_patterns([layer.pattern for layer in conversion.aligned], out.with_suffix('.json'))
    write_checkpoint({'state_dict': conversion.state_dict, 'meta': new_meta}, out)
    return conversion


def read_checkpoint(path: str | Path) -> Mapping:
    """Reads a checkpoint without running code from it; a ``.pkl`` file is read as one of Detectron.

    Raises:
        MissingFileError: The file does not exist.
        InputError: As :func:`icconv_mm.checkpoints.read` and :func:`icconv_mm.checkpoints.read_detectron`, or the
            content of the file is no dict.
    """
    if Path(path).suffix == '.pkl':
        return {'state_dict': reading.read_detectron(path)}
    checkpoint = reading.read(path)
    if not isinstance(checkpoint, Mapping):
        raise InputError(f'{path}: expected a dict of weights, found {type(checkpoint).__name__}')
    return checkpoint


def write_checkpoint(checkpoint: dict, path: str | Path) -> None:
    """Writes ``checkpoint`` to ``path`` atomically: readers find the old file or the complete new one.

    A file ``*.safetensors`` gets the weights in that format, without ``meta``.
    """
    if Path(path).suffix == reading.SAFETENSORS:
        content = safetensors.serialized(checkpoint['state_dict'])
        with atomic_write(Path(path)) as file:
            file.write(content)
        return
    with atomic_write(Path(path)) as file:
        torch.save(checkpoint, file)


def sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class UnmatchedKeysError(InputError):
    """Raised if keys of a checkpoint cannot be converted; ``conversion`` lists them."""

    def __init__(self, conversion: 'Conversion'):
        groups = group_keys(conversion.left)
        shown = ', '.join(f'{name} ({count})' for name, count in groups[:8])
        more = f' and {len(groups) - 8} more groups' if len(groups) > 8 else ''
        super().__init__(
            f'{len(conversion.left)} keys of a file of layout {conversion.layout!r} have no counterpart in the '
            f'converted one: {shown}{more}; give rename rules for them or allow them to be left out'
        )
        self.conversion = conversion


@dataclass(frozen=True)
class Move:
    """Record of what happened to some keys: joined, renamed, reordered or dropped (``new`` is None)."""

    old: tuple[str, ...]
    new: str | None
    how: str


class Conversion:
    """A conversion in progress. A source's converter moves tensors from ``left`` to ``state_dict``.

    Attributes:
        left: The tensors that are not converted yet, by their old key.
        state_dict: The converted tensors by their new key.
        moves: A record of each key that is no longer in ``left``, in order.
        layout: Name of the framework whose layout the converter recognised.
        aligned: The inception convolutions whose filters :meth:`align` moved to whole blocks, in forward order.
        unaligned: The converted tensors before that.
    """

    def __init__(self, tensors: Mapping[str, Tensor]):
        self.left: dict[str, Tensor] = dict(tensors)
        self.state_dict: dict[str, Tensor] = {}
        self.moves: list[Move] = []
        self.layout = 'unknown'
        self.aligned: list[AlignedLayer] = []
        self.unaligned: dict[str, Tensor] = {}
        self._origin: dict[str, str] = {}  # name in the file of a key that rules renamed

    def matching(self, expression: re.Pattern | str) -> list[str]:
        """Returns the keys in ``left`` that match a regular expression in full."""
        return [key for key in self.left if re.fullmatch(expression, key)]

    def place(self, old: str | Iterable[str], new: str, tensor: Tensor | None = None, how: str = 'renamed') -> None:
        """Places ``tensor`` (by default the one of key ``old``, unchanged) under the key ``new``."""
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
        """Leaves the key ``old`` out of the converted file."""
        del self.left[old]
        self.moves.append(Move((self._origin.get(old, old),), None, how))

    def place_all(self, expression: re.Pattern | str, new: str = r'\g<0>') -> list[str]:
        """Places every key that an expression matches under ``new``, a template of its groups; returns the old keys."""
        keys = self.matching(expression)
        for key in keys:
            self.place(key, re.fullmatch(expression, key).expand(new))
        return keys

    def align(self, pattern: str | Sequence, block: int, model: nn.Module | None = None) -> None:
        """Moves filters as :func:`icconv_mm.checkpoints.alignment.align_weights`."""
        self.unaligned = self.state_dict
        self.state_dict, self.aligned = align_weights(self.state_dict, pattern, block, model)

    def rename_left(self, rules: Iterable[RenameRule]) -> None:
        """Renames the keys in ``left`` by the first rule that matches, before a layout is recognised.

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
                raise InputError(f'{old} and {renamed[new]} would both be renamed to {new}')
            renamed[new] = old
        self._origin = {new: self._origin.get(old, old) for new, old in renamed.items()}
        self.left = {new: self.left[old] for new, old in renamed.items()}


def _network_in(checkpoint: Mapping, wanted: str | None) -> Mapping:
    """Returns the entry of a checkpoint with a network, or the entry ``wanted`` of several (a teacher, an average)."""
    networks = [name for name, value in checkpoint.items() if _has_kernels(value, depth=2)]
    named = ', '.join(map(repr, networks))
    if wanted is not None and wanted not in networks:
        raise InputError(f'no weights under {wanted!r}; found {named or "weights without such a name"}')
    if wanted is None and len(networks) > 1:
        raise InputError(f'the file holds {len(networks)} networks, under {named}; say which (weights)')
    return _network_in(checkpoint[wanted or networks[0]], None) if networks else checkpoint


def _has_kernels(value: Any, depth: int) -> bool:
    """Returns whether a dict, or a nested one, holds convolution weights; optimiser states nest theirs deeper."""
    inner = value.values() if isinstance(value, Mapping) and depth else ()
    return any(getattr(module, 'ndim', 0) == 4 or _has_kernels(module, depth - 1) for module in inner)


def checked_weights(checkpoint: Mapping) -> dict[str, Tensor]:
    """Returns the weights of an untrusted checkpoint by key (:func:`state_dict_of`) and checks them.

    Raises:
        InputError: There is no tensor, some entries are no tensors, or a tensor is not finite.
    """
    tensors = {key: value for key, value in state_dict_of(checkpoint).items() if key != 'model_cfg'}  # EOD's config
    foreign = [key for key, value in tensors.items() if not isinstance(value, Tensor)]
    if len(foreign) == len(tensors):
        raise InputError(f'no weights found: the file holds {", ".join(map(repr, tensors)) or "nothing"}')
    if foreign:
        kinds = ', '.join(f'{key!r} ({type(tensors[key]).__name__})' for key in foreign[:5])
        raise InputError(f'{len(foreign)} entries among the weights are not tensors: {kinds}')
    for key, value in tensors.items():
        if (values := float_array(value)) is not None and not is_finite(values):
            count = values.size - int(np.isfinite(values).sum())
            raise InputError(f'{key} has {count} of {values.size} values that are NaN or infinite')
    return tensors


def mask_numbers(key: str) -> str:
    """Replaces the numbers in a key by ``*``: ``'layer1.0.bn2.weight'`` -> ``'layer*.*.bn2.weight'``."""
    return re.sub(r'(?:(?<=layer)|(?<![A-Za-z0-9]))\d+', '*', key)


def group_keys(keys: Iterable[str]) -> list[tuple[str, int]]:
    """Returns keys with masked indices and their counts, in order of appearance."""
    return list(Counter(map(mask_numbers, keys)).items())
