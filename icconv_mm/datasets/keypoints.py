"""Keypoints of a dataset: the file of their names, pairs and sigmas, and mmpose's form of it."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.fileio import list_from_file

from icconv_mm.datasets.flips import find_flip_pairs
from icconv_mm.errors import InputError, naming
from icconv_mm.files import require_file

KEYPOINTS_FILE = 'pose_keypoints.json'  # written beside the converted annotations


# Precision of keypoint annotations as a share of the square root of the area: COCO's sigmas, by the name's last word.
_SIGMAS = dict(nose=0.026, eye=0.025, ear=0.035, shoulder=0.079, elbow=0.072, wrist=0.062, hip=0.107, knee=0.087)
_SIGMAS |= dict(ankle=0.089)


_SIGMA = 0.05  # of any other keypoint


def keypoint_metainfo(metainfo: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metainfo that mmpose needs, made from a short one; a complete one is returned as it is.

    Args:
        metainfo: ``keypoints``, the names in their order; and, each optional, ``skeleton``, pairs of indices from 0
            that a line joins; ``flip_pairs``, pairs of names that a flip swaps, by default ``left...`` and
            ``right...``; ``sigmas``, the annotation precision of each keypoint, by default :func:`sigmas_of`;
            ``classes``.

    Raises:
        InputError: A name occurs twice, or a pair or a sigma does not fit the keypoints.
    """
    if 'keypoints' not in metainfo or 'keypoint_info' in metainfo:
        return dict(metainfo)
    names = list(metainfo['keypoints'])
    if len(set(names)) < len(names):
        raise InputError(f'metainfo.keypoints: a name is there twice: {names}')
    pairs = metainfo.get('flip_pairs')
    swap: dict[str, str] = {}
    for a, b in find_flip_pairs(names) if pairs is None else pairs:
        if not {a, b} <= set(names):
            raise InputError(f'metainfo.flip_pairs: ({a!r}, {b!r}) are not both of the keypoints {names}')
        swap |= {a: b, b: a}
    links = [tuple(link) for link in metainfo.get('skeleton') or ()]
    for link in links:
        if len(link) != 2 or not all(isinstance(end, int) and 0 <= end < len(names) for end in link):
            raise InputError(f'metainfo.skeleton: {link} is no pair of numbers from 0 to {len(names) - 1}')
    sigmas = list(metainfo.get('sigmas') or sigmas_of(names))
    if len(sigmas) != len(names) or min(sigmas) <= 0:
        raise InputError(f'metainfo.sigmas: expected {len(names)} numbers above 0, got {sigmas}')
    rest = {key: value for key, value in metainfo.items() if key not in ('keypoints', 'skeleton', 'flip_pairs')}
    return {
        'dataset_name': 'own keypoints',
        **rest,
        'keypoint_info': {i: dict(id=i, name=name, swap=swap.get(name, '')) for i, name in enumerate(names)},
        'skeleton_info': {i: dict(id=i, link=(names[a], names[b])) for i, (a, b) in enumerate(links)},
        'joint_weights': [1.0] * len(names),
        'sigmas': sigmas,
    }


def read_names(metainfo: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metainfo of a config with what is in the files that it names.

    ``keypoints`` may name a JSON file, whose content is merged; ``classes`` a text file with a name in each line.

    Raises:
        MissingFileError, InputError: A file does not exist, or is invalid.
    """
    settings = dict(metainfo)
    for key in ('keypoints', 'classes'):
        if isinstance(path := settings.get(key), str):
            require_file(path, f'metainfo.{key}')
            with naming(path, OSError, ValueError, TypeError):
                settings |= json.loads(Path(path).read_bytes()) if key == 'keypoints' else {key: list_from_file(path)}
    return settings


def sigmas_of(names: Sequence[str]) -> list[float]:
    """Returns COCO's sigmas for eyes, shoulders, ... and 0.05 for other keypoints."""
    return [_SIGMAS.get(re.split(r'[^a-z]', name.lower())[-1], _SIGMA) for name in names]
