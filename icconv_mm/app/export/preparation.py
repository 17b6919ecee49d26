"""Translates a test pipeline and a data preprocessor into the preprocessing steps of the runtime."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from icconv_mm.config_tree import kind_of
from icconv_mm.errors import InputError
from icconv_mm.tasks.libraries import library_of
from icconv_mm_runtime.images import Sample, arrays_of, preprocess, read_all

# Options of loading transforms that match how the runtime reads an image.
_READING = {'to_float32': False, 'color_type': 'color', 'imdecode_backend': 'cv2'}


def steps_of(transforms: Sequence[Mapping[str, Any]], where: str) -> list[dict[str, Any]]:
    """Returns the runtime's steps for the transforms of a test pipeline, without those for annotations.

    Raises:
        InputError: The runtime has no step for a transform, or for an option of one.
    """
    steps = []
    for number, transform in enumerate(transforms):
        kind, options = kind_of(transform), {key: value for key, value in transform.items() if key != 'type'}
        if kind == 'LoadTaskAnnotations' or kind.startswith('Pack'):
            continue
        if kind in ('LoadImageFromFile', 'LoadImage'):
            if others := {key: value for key, value in options.items() if _READING.get(key, value) != value}:
                raise InputError(f'{where}.{number}: {kind} with {others} cannot be exported')
            continue
        if kind not in _STEPS:
            names = ', '.join(_STEPS)
            raise InputError(f'{where}.{number}: {kind} cannot be exported; transforms that can are {names}')
        make, allowed = _STEPS[kind]
        if others := {key: value for key, value in options.items() if key not in allowed and value is not None}:
            raise InputError(f'{where}.{number}: {kind} with {others} cannot be exported')
        steps.append(make(options))
    return steps


def _resize(options: Mapping[str, Any]) -> dict:
    scale = options['scale']
    scale = [scale, scale] if isinstance(scale, int) else list(scale)
    return {'op': 'resize', 'scale': scale, 'keep_ratio': bool(options.get('keep_ratio', False))}


def _resize_edge(options: Mapping[str, Any]) -> dict:
    return {'op': 'resize_edge', 'scale': options['scale'], 'edge': options.get('edge', 'short')}


def _center_crop(options: Mapping[str, Any]) -> dict:
    size = options['crop_size']
    return {'op': 'center_crop', 'size': [size, size] if isinstance(size, int) else list(size)}


def _pad(options: Mapping[str, Any]) -> dict:
    value = options.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, Mapping) else value
    return {
        'op': 'pad',
        'size': list(options['size']),
        'value': [value] * 3 if isinstance(value, (int, float)) else list(value),
    }


def _pyramid(options: Mapping[str, Any]) -> dict:
    scales = sorted(options.get('scales', (1,)), reverse=True)
    rule = {'size_divisor': options.get('size_divisor', 64), 'stride': options.get('stride', 32)}
    return {'op': 'pyramid', 'input_size': list(options['input_size']), 'scales': scales, **rule}


def _fit(options: Mapping[str, Any]) -> dict:
    return {'op': 'fit', 'input_size': list(options['input_size']), 'value': list(options.get('pad_val', (0, 0, 0)))}


_STEPS = {
    'Resize': (_resize, ('scale', 'keep_ratio')),
    'ResizeEdge': (_resize_edge, ('scale', 'edge')),
    'CenterCrop': (_center_crop, ('crop_size',)),
    'Pad': (_pad, ('size', 'pad_val')),
    'MultiScaleResize': (_pyramid, ('input_size', 'scales', 'size_divisor', 'stride')),
    'BottomupResize': (_fit, ('input_size', 'pad_val')),
}


def scales_of(steps: Sequence[Mapping[str, Any]]) -> list[float]:
    """Returns the scales of the images that the steps make, largest first."""
    return next((step['scales'] for step in steps if step['op'] == 'pyramid'), [1])


def batch_of(model: nn.Module, steps: Sequence[Mapping[str, Any]], fixed: Sequence[int] | None, where: str) -> dict:
    """Returns how images form a batch: padded to multiples of ``divisor``, and to the largest image if ``pads``.

    ``fixed`` is the height and width of every input, or (1, height, width) where a batch has one image; None for free
    sizes. ``where`` names the preprocessor in errors.

    Raises:
        InputError: The preprocessor pads in another way.
    """
    preprocessor = model.data_preprocessor
    library = library_of(type(model)) or ('mmdet' if hasattr(model, 'tasks') else None)
    divisor = getattr(preprocessor, 'pad_size_divisor', 1)
    if library == 'mmseg':
        rule = dict(preprocessor.test_cfg or {})
        if (size := rule.get('size')) and model.test_cfg.get(
            'mode', 'whole'
        ) == 'whole':  # sliding windows have an error of their own
            raise InputError(f'{where}.test_cfg.size: {size} cannot be exported, only size_divisor')
        divisor = rule.get('size_divisor') or 1
    value = getattr(preprocessor, 'pad_value', getattr(preprocessor, 'pad_val', 0))
    if divisor > 1 and value != 0:
        raise InputError(f'{where}: filling up with {value} cannot be exported, only with 0')
    count = None
    if fixed is not None and len(fixed) == 3:
        count, *fixed = fixed
    if fixed is not None and any(len(step.get('scales', ())) > 1 for step in steps):
        raise InputError('fixed: inputs of several test scales differ in size; leave it out, or test at one scale')
    ends_fixed = next((step for step in steps if step['op'] in ('fit', 'pad', 'center_crop')), None)
    if fixed is None and ends_fixed is not None and ends_fixed['op'] == 'fit':
        fixed = ends_fixed['input_size'][::-1]
    sized = library == 'mmdet' or divisor > 1 or (fixed is not None and library == 'mmseg')
    return {
        'divisor': divisor,
        'pads': library == 'mmdet',
        'sized': sized,
        'fixed': None if fixed is None else list(fixed),
        'count': count,
    }


def inputs_of(images: Iterable[Path], description: Mapping[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """Yields the file's inputs for each image alone, by name."""
    for path, image in read_all(list(map(str, images))):
        yield arrays_of([preprocess(Sample(path, image), description['steps'])], description['batch'])
