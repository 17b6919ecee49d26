"""Reads and checks the metadata of a checkpoint: a file from an untrusted source may hold any values.

mmengine sets counters, logs and file names to the values in the file of a resumed run. An untrusted file could thereby
delete any file, as the former best checkpoint, or make the run wait for iteration 10**12.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm.checkpoints.matching import in_words
from icconv_mm.checkpoints.reading import HistoryBuffer
from icconv_mm.errors import InputError, check_names, short
from icconv_mm.run_folder import same_name_in

_MAX_SEED = 2**32 - 1


def meta_of(checkpoint: Any) -> Mapping[str, Any]:
    """Returns the ``meta`` of a checkpoint; empty if it has none.

    Raises:
        InputError: The checkpoint or its ``meta`` is no dict.
    """
    meta = mapping(checkpoint, 'the checkpoint').get('meta')
    return {} if meta is None else mapping(meta, 'meta')


def dataset_meta_of(checkpoint: Any) -> dict[str, Any]:
    """Returns class names, colours and keypoints of the dataset that a checkpoint was trained on, by lower-case name.

    The key ``from_file``, with which mmpose runs a config file, is left out.

    Raises:
        InputError: ``classes`` or ``palette`` do not have the form that the libraries write.
    """
    dataset_meta = mapping(meta_of(checkpoint).get('dataset_meta') or {}, 'meta.dataset_meta')
    meta = {str(key).lower(): value for key, value in dataset_meta.items() if key != 'from_file'}
    if meta.get('classes') is not None:
        class_names(meta['classes'], 'meta.dataset_meta.classes')
    palette = meta.get('palette')
    if palette is not None and not isinstance(palette, str):
        try:
            shape = np.asarray(palette, dtype=float).shape
        except (TypeError, ValueError, OverflowError):
            shape = ()
        if len(shape) != 2 or shape[1] != 3:
            raise InputError(f'meta.dataset_meta.palette is {short(palette)}, expected colours (R, G, B)')
    return meta


def class_names(classes: Any, name: str) -> tuple[str, ...]:
    """Returns the class names in a checkpoint, empty without any; mmpose writes categories, which have a name.

    Raises:
        InputError: ``classes`` is no list of names; the message begins with ``name``, their location.
    """
    names = classes if isinstance(classes, (list, tuple)) else [classes] if classes is not None else []
    names = [name.get('name') if isinstance(name, dict) else name for name in names]
    if not all(isinstance(name, str) for name in names):
        raise InputError(f'{name} is {short(classes)}, expected a list of class names')
    check_names(names, f'{name}: the class')
    return tuple(names)


def mapping(value: Any, name: str) -> Mapping:
    """Returns ``value`` if it is a dict, else raises InputError with its location ``name``."""
    if not isinstance(value, Mapping):
        raise InputError(f'{name} is {"missing" if value is None else in_words(value)}, expected a dict')
    return value


def seed_of(checkpoint: Any) -> int | None:
    """Returns the seed of the run that wrote a checkpoint, if known.

    Raises:
        InputError: The value is no seed.
    """
    seed = meta_of(checkpoint).get('seed')
    return None if seed is None else _number(seed, 'meta.seed', _MAX_SEED)


def check_progress(checkpoint: Any, max_epochs: int | None, max_iters: int | None) -> None:
    """Raises InputError unless ``meta`` has a valid epoch and iteration for a run of so many epochs or iterations."""
    meta = meta_of(checkpoint)
    for key, most in (('epoch', max_epochs), ('iter', max_iters)):
        if key not in meta:
            raise InputError(f'it has no meta.{key}, so that no run can continue from it')
        _number(meta[key], f'meta.{key}', 2**40 if most is None else most)
    seed_of(checkpoint)


def check_message_hub(checkpoint: Mapping[str, Any], folders: Sequence[Path]) -> list[str]:
    """Raises InputError for wrong types in the message hub; checkpoints of this run get their paths in it.

    Args:
        checkpoint: The content of the checkpoint file; changed in place.
        folders: Folders of this run, where mmengine may delete the best checkpoint so far when there is a better one.

    Returns:
        The best checkpoints that are in none of the folders; mmengine, which would delete them, does not know them.
    """
    hub = mapping(checkpoint.get('message_hub'), 'message_hub')
    for key, value in mapping(hub.get('log_scalars'), 'message_hub.log_scalars').items():
        if not isinstance(value, HistoryBuffer):
            raise InputError(f'message_hub.log_scalars[{short(key)}] is {in_words(value)}, expected a HistoryBuffer')
    for key, value in mapping(hub.get('resumed_keys'), 'message_hub.resumed_keys').items():
        if not isinstance(value, bool):
            raise InputError(f'message_hub.resumed_keys[{short(key)}] is {short(value)}, expected True or False')
    info = mapping(hub.get('runtime_info'), 'message_hub.runtime_info')
    kept = info.get('keep_ckpt_ids', [])
    if not isinstance(kept, list) or any(type(value) is not int for value in kept):
        raise InputError(f'message_hub.runtime_info.keep_ckpt_ids is {short(kept)}, expected a list of integers')
    removed = []
    for key, value in list(info.items()):
        if not isinstance(key, str) or not key.startswith(('best_ckpt', 'last_ckpt')):
            continue
        if not isinstance(value, str):
            raise InputError(f'message_hub.runtime_info.{key} is {short(value)}, expected a path')
        if path := same_name_in(value, folders):
            info[key] = str(path)
        else:
            del info[key]
            removed += [value] * (key.startswith('best_ckpt') and os.path.exists(value))
    return removed


def _number(value: Any, name: str, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise InputError(f'{name} is {short(value, 40)}, expected a number from 0 to {most}')
    return value
