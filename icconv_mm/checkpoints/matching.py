"""Compares a checkpoint with a model and reports the differences."""

import copy
import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from icconv_mm.errors import InputError, naming, short
from icconv_mm_runtime.finite import ADVICE, is_finite

_GROUPS_SHOWN = 12
_WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'net')


class ArchitectureMismatchError(InputError):
    """Raised if a checkpoint holds the weights of another architecture; nothing of it was loaded."""


@dataclass(frozen=True)
class Mismatch:
    """Differences between a state dict and a model.

    Attributes:
        missing: Keys of the model that the state dict lacks.
        unexpected: Keys of the state dict that the model lacks.
        shapes: ``(key, shape in the model, shape in the state dict)`` where both have a key and the shapes differ.
        kinds: ``(key, kind in the model, kind in the state dict)`` where the values cannot be loaded: an array, a
            sparse tensor or one without values, complex numbers or integers for real ones.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    kinds: tuple[tuple[str, str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes or self.kinds)

    def __str__(self) -> str:
        """Returns the keys, grouped by module."""
        shapes = [
            f'{key} {list(expected)} in the model, {list(actual)} in the checkpoint'
            for key, expected, actual in self.shapes
        ]
        kinds = [
            f'{key} is {expected} in the model, {actual} in the checkpoint' for key, expected, actual in self.kinds
        ]
        parts = (
            ('missing in the checkpoint', self.missing, _grouped(self.missing)),
            ('not in the model', self.unexpected, _grouped(self.unexpected)),
            ('of another shape', shapes, _few(shapes, '; ', '; and {} more')),
            ('of another kind', kinds, _few(kinds, '; ', '; and {} more')),
        )
        return '\n  '.join(f'{what} ({len(names)}): {shown}' for what, names, shown in parts if names)

    def outside(self, modules: Sequence[str]) -> 'Mismatch':
        """Returns the differences outside the given modules (``'bbox_head'``), where they are accepted."""

        def is_outside(key: str) -> bool:
            return not any(key == module or key.startswith(f'{module}.') for module in modules)

        return Mismatch(
            tuple(filter(is_outside, self.missing)),
            tuple(filter(is_outside, self.unexpected)),
            tuple(entry for entry in self.shapes if is_outside(entry[0])),
            tuple(entry for entry in self.kinds if is_outside(entry[0])),
        )


def state_dict_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the weights in a checkpoint, with or without wrappers.

    Takes the entry ``state_dict``, ``model``, ``model_state_dict`` or ``net``, without optimiser states and counters,
    and strips the ``module.`` that data-parallel wrappers put before every key.

    Raises:
        InputError: There are no named weights.
    """
    weights = checkpoint
    if not isinstance(weights, Mapping):
        raise InputError(f'expected a dict of weights, found {type(weights).__name__}')
    while wrapper := next((name for name in _WRAPPERS if isinstance(weights.get(name), Mapping)), None):
        weights = weights[wrapper]
    odd = [key for key in weights if not isinstance(key, str)]
    if odd:
        raise InputError(f'expected weights by name, found the key {short(odd[0], 40)} ({type(odd[0]).__name__})')
    while weights and all(key.startswith('module.') for key in weights):
        weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    return weights


def compare(model: nn.Module, state_dict: Mapping[str, Tensor]) -> 'Mismatch':
    """Compares keys and shapes; ignores the counters of batch norm, which old checkpoints lack."""
    expected = model.state_dict()
    return Mismatch(
        tuple(key for key in expected if key not in state_dict and not key.endswith('num_batches_tracked')),
        tuple(key for key in state_dict if key not in expected),
        tuple(
            (key, tuple(expected[key].shape), tuple(value.shape))
            for key, value in state_dict.items()
            if isinstance(expected.get(key), Tensor)
            and isinstance(value, Tensor)
            and expected[key].shape != value.shape
        ),
        tuple(
            (key, in_words(expected[key]), in_words(value))
            for key, value in state_dict.items()
            if key in expected and not _can_become(value, expected[key])
        ),
    )


def _can_become(value: Any, expected: Any) -> bool:
    """Returns whether ``load_state_dict`` can load the value; it skips or converts values of another kind."""
    if not isinstance(expected, Tensor):  # extra state, which only its module understands
        return not isinstance(value, Tensor) or value.layout == torch.strided
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        return False
    if value.is_complex() != expected.is_complex():
        return False
    return value.is_floating_point() or value.is_complex() or not expected.is_floating_point()


def in_words(value: Any) -> str:
    """Returns a description of a state dict's value: ``'a tensor of float32'``, ``'a numpy array'``."""
    if isinstance(value, np.ndarray):
        return 'a numpy array'
    if not isinstance(value, Tensor):
        return f'a {type(value).__name__}'
    where = ' without values' if value.is_meta else ''
    layout = '' if value.layout == torch.strided else f'{str(value.layout).removeprefix("torch.")} '
    return f'a {layout}tensor of {str(value.dtype).removeprefix("torch.")}{where}'


def check_fits(model: nn.Module, checkpoint: Mapping[str, Any], name: str, allow: Sequence[str] = ()) -> None:
    """Raises an error unless the content of the checkpoint file ``name`` fits a model; loads nothing.

    Differences in the modules ``allow`` are accepted, such as the head of another number of classes.

    Raises:
        ArchitectureMismatchError: The checkpoint does not fit; the message lists the keys.
    """
    with naming(name):
        state_dict = state_dict_of(checkpoint)
    mismatch = compare(model, state_dict).outside(allow)
    if mismatch.kinds or (mismatch and (allow or not _loads_after_upgrade(model, state_dict))):
        raise _misfit(name, model, mismatch)
    _require_finite(model, state_dict, name)


_CORRECTIONS = 'roi_head.bbox_head.fc_reg.'  # of boxes: four for all classes, or for each


def fit_around_backbone(model: nn.Module, checkpoint: dict[str, Any], name: str) -> list[str]:
    """Replaces the weights of a checkpoint that a model cannot have by the model's own, outside its backbone.

    So a detector's weights serve a network of other classes, or of another task. Corrections of boxes that all classes
    share serve each class of a network that has some for each.

    Args:
        model: A network with a ``backbone``.
        checkpoint: The content of a file; its ``state_dict`` is replaced.
        name: Name of the checkpoint in the error.

    Returns:
        The outermost modules of the model that get nothing of the checkpoint.

    Raises:
        ArchitectureMismatchError: The checkpoint does not fit the backbone; the message lists the keys.
    """
    own, weights = model.state_dict(), dict(state_dict_of(checkpoint))
    for key in own.keys() & weights.keys():
        if key.startswith(_CORRECTIONS) and len(weights[key]) == 4 and len(own[key]) % 4 == 0:
            weights[key] = torch.cat([weights[key]] * (len(own[key]) // 4))
    fitting = {key: value for key, value in weights.items() if _shape(value) == _shape(own.get(key)) is not None}
    left = [key for key in own if key not in fitting and not key.endswith('num_batches_tracked')]
    if wrong := [key for key in left if key.startswith('backbone.')]:
        raise _misfit(name, model, Mismatch(tuple(wrong), (), ()))
    checkpoint['state_dict'] = {**own, **fitting}
    filled = {parent for key in fitting for parent in _parents(key)}
    return list(dict.fromkeys(next(parent for parent in _parents(key) if parent not in filled) for key in left))


def _parents(key: str) -> list[str]:
    """Returns the modules of a key, the outermost first, and the key: ``'a.b'`` -> ``['a', 'a.b']``."""
    return list(itertools.accumulate(key.split('.'), '{}.{}'.format))


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def check_covers(module: nn.Module, checkpoint: Mapping[str, Any], name: str, prefix: str | None = None) -> None:
    """Raises an error unless pretrained weights, the content of the file ``name``, cover a module such as a backbone.

    The file may hold more, such as a classifier. With a ``prefix`` only keys with it are used, without it, as for
    mmengine's ``Pretrained`` initialisation.

    Raises:
        ArchitectureMismatchError: Weights are missing or of another shape; the message lists the keys.
    """
    with naming(name):
        weights = state_dict_of(checkpoint)
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    differences = compare(module, weights)
    mismatch = Mismatch(differences.missing, (), differences.shapes, differences.kinds)
    if mismatch.kinds or (mismatch and not _loads_after_upgrade(module, weights, more=True)):
        raise _misfit(name, module, mismatch)
    _require_finite(module, weights, name)


def _require_finite(model: nn.Module, weights: Mapping[str, Any], name: str) -> None:
    """Raises InputError for weights that are not finite where the model's own are."""
    bad = [key for key, value in weights.items() if (array := float_array(value)) is not None and not is_finite(array)]
    array = model.state_dict() if bad else {}  # of a sharded model, all processes must ask for it as often
    for key in bad:
        if (values := float_array(array.get(key))) is not None and is_finite(values):
            raise InputError(f'{name}: {key} {ADVICE}; take an earlier checkpoint')


def float_array(value: Any) -> np.ndarray | None:
    """Returns the values of a tensor of real numbers, on the CPU; None for others."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta or value.layout != torch.strided:
        return None
    value = value.detach().cpu()
    return (value.float() if value.element_size() < 4 else value).numpy()


def _misfit(name: str, model: nn.Module, mismatch: Mismatch) -> ArchitectureMismatchError:
    return ArchitectureMismatchError(f'{name} does not fit {type(model).__name__}, nothing was loaded:\n  {mismatch}')


def _loads_after_upgrade(model: nn.Module, state_dict: Mapping[str, Tensor], more: bool = False) -> bool:
    """Returns whether the checkpoint fits after the model's own hooks rename the keys of older versions.

    They run on a copy whose tensors have shapes but no storage. With ``more``, the checkpoint may hold further keys.
    """
    blank = {}
    for value in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(value, device='meta', requires_grad=False)
        blank[id(value)] = nn.Parameter(empty, value.requires_grad) if isinstance(value, nn.Parameter) else empty
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch warns that copying into a tensor without storage has no effect
        try:
            # like mmengine, which does not call a load_state_dict that the model overrides
            result = nn.Module.load_state_dict(copy.deepcopy(model, blank), dict(state_dict), strict=False)
        # another shape, a hook that refuses the weights, or a sharded model, which cannot be copied
        except (RuntimeError, TypeError, ArchitectureMismatchError):
            return False
    missing = [key for key in result.missing_keys if not key.endswith('num_batches_tracked')]
    return not missing and (more or not result.unexpected_keys)


def _grouped(keys: Sequence[str]) -> str:
    """Returns ``backbone.layer1 (12: conv1.weight, ...)`` for each module two levels deep."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        parts = key.split('.')
        groups.setdefault('.'.join(parts[: min(2, len(parts) - 1)]), []).append('.'.join(parts[2:]) or parts[-1])
    shown = [f'{name} ({len(keys)}: {keys[0]}{", ..." if len(keys) > 1 else ""})' for name, keys in groups.items()]
    return _few(shown, ', ', ' and {} more modules')


def _few(items: Sequence[str], separator: str, more: str) -> str:
    """Returns the first items and the number of further ones."""
    rest = len(items) - _GROUPS_SHOWN
    return separator.join(items[:_GROUPS_SHOWN]) + (more.format(rest) if rest > 0 else '')
