"""What a checkpoint says beside its weights, checked: a file from anywhere may say anything."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from icconv_mm.checkpoints.matching import in_words
from icconv_mm.errors import InputError


def meta_of(checkpoint: Any) -> Mapping[str, Any]:
    """What a checkpoint says about itself; empty if it says nothing.

    Raises:
        InputError: The checkpoint or its ``meta`` is no dict.
    """
    meta = mapping(checkpoint, 'the checkpoint').get('meta')
    return {} if meta is None else mapping(meta, 'meta')


def dataset_meta_of(checkpoint: Any) -> dict[str, Any]:
    """Class names, colours and keypoints of the dataset that a checkpoint was trained on, by lower-case name.

    ``from_file``, by which mmpose runs a config file, is left out.

    Raises:
        InputError: ``classes`` or ``palette`` are not of the form that libraries write.
    """
    found = mapping(meta_of(checkpoint).get('dataset_meta') or {}, 'meta.dataset_meta')
    meta = {str(key).lower(): value for key, value in found.items() if key != 'from_file'}
    if meta.get('classes') is not None:
        class_names(meta['classes'], 'meta.dataset_meta.classes')
    palette = meta.get('palette')
    if palette is not None and not isinstance(palette, str):
        try:
            shape = np.asarray(palette, dtype=float).shape
        except (TypeError, ValueError):
            shape = ()
        if len(shape) != 2 or shape[1] != 3:
            raise InputError(f'meta.dataset_meta.palette is {palette!r:.60}, expected colours (R, G, B)')
    return meta


def class_names(classes: Any, name: str) -> tuple[str, ...]:
    """The class names that a checkpoint holds, none if it holds none; mmpose writes categories, which have a name.

    Raises:
        InputError: They are no list of names; ``name`` says where they are.
    """
    names = classes if isinstance(classes, (list, tuple)) else [classes] if classes is not None else []
    names = [each.get('name') if isinstance(each, dict) else each for each in names]
    if not all(isinstance(each, str) for each in names):
        raise InputError(f'{name} is {classes!r:.60}, expected a list of class names')
    return tuple(names)


def mapping(value: Any, name: str) -> Mapping:
    """``value``; raises InputError, which says where it is, unless it is a dict."""
    if not isinstance(value, Mapping):
        raise InputError(f'{name} is {"missing" if value is None else in_words(value)}, expected a dict')
    return value
