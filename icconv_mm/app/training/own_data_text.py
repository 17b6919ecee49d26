"""The text of a config for the user's own images: editable variables on top, then the files of ``own_data/written``.

It has no name and no path of the dataset, not even in a literal, because mmengine replaces template marks in a
config's text before it parses it. They are in the folder of annotations, which the config finds relative to itself.
"""

# mmengine's Config.dump replaces names by values: editing size or epochs on top would change nothing.
import ast
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat
from typing import Any

import jinja2
import numpy as np

from icconv_mm.app.annotations.dataset import SPLITS, Converted
from icconv_mm.datasets.keypoints import KEYPOINTS_FILE
from icconv_mm.errors import InputError
from icconv_mm.files import configs_folder
from icconv_mm.run_folder import CHOICES, HERE, IMAGES
from icconv_mm_runtime.drawing import palette

_STRIDE = 4  # pixels: of the first map of usual backbones
_WARM_UP = 200  # iterations, and at most a tenth of the training
_LEAST_CROP = 256  # pixels
_LEAST_OF_MOSAIC = 40  # images: a process puts none together before its fifth
_WORKERS = 8  # at most: each takes some hundred megabytes
_WHOLE = 5300  # images that the last epochs see; a mosaic before them helps, in their place it harms
BEST = {
    'detection': 'coco/bbox_mAP',
    'instance': 'coco/segm_mAP',
    'semantic': 'mIoU',
    'pose': 'coco/AP',
    'classification': 'accuracy/top1',
}


@dataclass(frozen=True)
class Choices:
    """The choices in a written config, apart from its annotations.

    Attributes:
        task, epochs: As in :func:`icconv_mm.apis.config_for`.
        size: Pixels of the longer side that images are resized to.
        shape: Width and height of training images, multiples of 32, in the proportion of the images.
        backbone: Its config.
        base_channels: Channels of its first stage, 64 in usual networks.
        is_deep: Whether it has bottlenecks: four times the channels.
        batch: Images per step.
        rate: Learning rate.
        weights: ``init_cfg`` of the backbone, or None.
        patience: Validations without improvement that end the training; None for no limit.
        reason: Why the batch is smaller than usual, as the end of a message, or ''.
        load_from: Address of weights of the package for the whole network, or None.
    """

    task: str
    epochs: int
    size: int
    shape: tuple[int, int]
    backbone: dict
    base_channels: int
    is_deep: bool
    batch: int
    rate: float
    weights: dict | None
    patience: int | None
    reason: str
    load_from: str | None = None


def config_text(chosen: Choices, converted: dict[str, Converted], annotations: str) -> str:
    """Returns the text of the config: variables with the choices, and below them the settings that follow from these.

    ``annotations`` is the name of their folder, inside the folder that is named like the config.

    Raises:
        InputError: A path, such as that of weights, has a template mark that mmengine would replace.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(configs_folder() / '_base_' / 'own_data' / 'written'),
        block_start_string='# {%',  # comments of Python, so that the files can be linted
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    is_small = chosen.task == 'detection' and chosen.base_channels < 64  # others were not measured
    first = next(task for task, conversion in converted.items() if 'val' in conversion.files)
    values = dict(
        task=chosen.task,
        tasks=list(converted),
        is_fast=chosen.task == 'detection' and strides_of(chosen.backbone)[0] > _STRIDE,
        mosaic=is_small and _most_images(converted) >= _LEAST_OF_MOSAIC,
        best=repr(BEST.get(chosen.task) or f'{first}/{BEST[first]}'),
        patience=chosen.patience,
        load_from=chosen.load_from and repr(chosen.load_from),
    )
    settings = 'objects' if chosen.task in ('detection', 'instance') else chosen.task
    body = '\n'.join(templates.get_template(f'{name}.py').render(values) for name in (settings, 'end'))
    used = set(re.findall(r'\w+', body))
    variables = [*_files(chosen, converted), *(_literal(*number) for number in _numbers(chosen, converted))]
    values |= dict(
        here=HERE,
        annotations=annotations,
        images=IMAGES,
        variables='\n'.join(line for line in variables if re.search(r'^\w+', line, re.MULTILINE)[0] in used),
        body=body.rstrip(),
    )
    return templates.get_template('config.jinja').render(values)


def choices_text(chosen: Choices, annotations: str, backbone: str, data: Sequence[str], text: str) -> dict[str, Any]:
    """Returns what the file beside a config has: its choices, as :func:`written_choices` reads them.

    ``backbone`` is what the backbone was called, ``data`` the paths of the data from the config's folder, ``text`` the
    config's.
    """
    return {
        **{name: value for name, value in vars(chosen).items() if name not in ('is_deep', 'base_channels', 'reason')},
        'backbone': backbone,
        'annotations': annotations,
        'data': list(data),
        'sha256': hashlib.sha256(text.encode()).hexdigest(),
    }


def written_choices(config: Path) -> dict[str, Any]:
    """Returns backbone, size, epochs, batch, weights, annotations, ... and ``is_unedited`` of a written config.

    They are in the file beside it, in a config of an earlier version in its text. Without a config, or one that names
    them, they are None.
    """
    kinds = {'backbone': str, 'size': int, 'epochs': int, 'batch': int, 'annotations': str, 'data': list}
    kinds |= {'weights': dict, 'load_from': str}
    choices = dict.fromkeys(kinds)
    with suppress(FileNotFoundError, ValueError, AttributeError, RecursionError, SyntaxError):
        text = config.read_text()
        file = config.with_suffix(CHOICES)
        stored = json.loads(file.read_bytes()) if file.is_file() else _former_choices(text)
        for name, kind in kinds.items():
            choices[name] = stored[name] if isinstance(stored.get(name), kind) else None
        head, _, rest = text.partition('\n')
        hashed = rest if head == f'# sha256 of the rest: {stored.get("sha256")}' else text
        choices['is_unedited'] = stored.get('sha256') == hashlib.sha256(hashed.encode()).hexdigest()
    return {'is_unedited': False, **choices}


def _former_choices(text: str) -> dict[str, Any]:
    """Returns the choices that configs of earlier versions have in their text."""
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    values = {node.targets[0].id: node.value for node in nodes if isinstance(node.targets[0], ast.Name)}
    sides = [getattr(side, 'value', None) for side in getattr(values.get('shape'), 'elts', [values.get('size')])]
    marks = dict(
        line[2:].split(': ', 1) for line in text.splitlines() if line.startswith(('# sha256 of', '# backbone: '))
    )
    return {
        'backbone': marks.get('backbone'),
        'size': max(filter(None, sides), default=None),
        'epochs': getattr(values.get('epochs'), 'value', None),
        'batch': getattr(values.get('batch_size'), 'value', None),
        'weights': dict(type='Pretrained') if 'init_cfg' in text else None,
        'annotations': getattr(getattr(values.get('annotations'), 'right', None), 'value', '').strip('/'),
        'sha256': marks.get('sha256 of the rest'),
    }


def strides_of(backbone: Mapping[str, Any]) -> list[int]:
    """Returns the strides of a detector's maps in pixels of the image: 4 to 64, or 8 to 64 of a backbone without 4."""
    return [4, 8, 16, 32, 64][1 if backbone.get('strides', [1])[0] == 2 else 0 :]


def anchors(boxes: np.ndarray, size: int, stride: int = _STRIDE) -> dict[str, list]:
    """Returns scale and ratios of anchors on strides up to 64.

    Args:
        boxes: Width and height of objects as fractions of the longer side of their images, [m, 2].
        size: Pixels of the longer side.
        stride: The least stride.
    """
    scales = [8, 4, 2] if stride == _STRIDE else [4, 2.8, 2, 1.4, 1]  # one size less: finer steps
    if not len(boxes):
        return dict(scales=scales[:1], ratios=[0.5, 1.0, 2.0])
    least = float(np.percentile(np.sqrt(boxes.prod(1)) * size, 5))
    scale = next((scale for scale in scales if stride * scale <= 1.3 * least), scales[-1])
    low, high = np.percentile(boxes[:, 1] / boxes[:, 0], [5, 95])
    ratios = [0.5, 1.0, 2.0]
    if low < 0.3:
        ratios.insert(0, round(float(max(low, 0.1)), 2))
    if high > 3.3:
        ratios.append(round(float(min(high, 10)), 2))
    return dict(scales=[scale], ratios=ratios)


def crop_of(size: tuple[int, int]) -> tuple[int, int]:
    """Returns width and height of the training crop of a segmentation map: 2/3 of a side, at least 256 pixels."""
    return tuple(min(side, max(_LEAST_CROP, round(side * 2 / 3 / 32) * 32)) for side in size)


def class_weights(shares: Sequence[float]) -> list[float]:
    """Returns class weights by shares of the pixels, 1 for the mean pixel (ENet, https://arxiv.org/abs/1606.02147)."""
    weights = [1 / math.log(1.02 + share) for share in shares]
    mean = sum(share * weight for share, weight in zip(shares, weights)) / (sum(shares) or 1)
    return [round(weight / mean, 2) for weight in weights]


def _literal(name: str, value: Any, comment: str = '') -> str:
    """Returns ``name = value  # comment`` in lines of at most 120 characters; a dict becomes a call of ``dict``."""
    text = repr(value)
    if '{{' in text:
        raise InputError(f'{name}: {text:.200} has {{{{, which mmengine replaces in a config: rename it')
    if isinstance(value, dict):
        members = [f'{key}={item!r}' for key, item in value.items()]
        text = f'dict({", ".join(members)})'
    line = f'{name} = {text}{f"  # {comment}" if comment else ""}'
    if len(line) <= 120:
        return line
    if isinstance(value, dict):
        members = [_literal(key, item).replace(' = ', '=', 1).replace('\n', '\n    ') for key, item in value.items()]
        text = ''.join(['dict(\n', *(f'    {member},\n' for member in members), ')'])
    else:
        text = pformat(value, width=112 - len(name), compact=True).replace('\n', '\n' + ' ' * (len(name) + 3))
    return f'# {comment}\n{name} = {text}' if comment else f'{name} = {text}'


def _files(chosen: Choices, converted: dict[str, Converted]) -> Iterator[str]:
    """Yields lines with the files and class counts of each task; beside objects, the variables end in the task."""
    for task, conversion in converted.items():
        end = f'_{task}' if chosen.task == 'all' and task in ('semantic', 'pose') else ''
        for split in SPLITS:
            file = conversion.files.get(split)
            value = f"annotations + '/{file.name}'" if file else 'None  # no image of this split has any'
            yield f'{split}_ann_file{end} = {value}'
        if task == 'pose':
            yield f"keypoints{end} = annotations + '/{KEYPOINTS_FILE}'  # names, skeleton, flip_pairs, sigmas"
            yield f'num_keypoints{end} = {len(conversion.keypoints)}'
        else:
            yield f"classes{end} = annotations + '/{task}_classes.txt'  # a name in each line"
            yield f'num_classes{end} = {len(conversion.classes)}'
            colors = zip(conversion.classes, palette(len(conversion.classes)))
            yield _literal(f'palette{end}', [conversion.colors.get(name, color) for name, color in colors])


def _numbers(chosen: Choices, converted: dict[str, Converted]) -> Iterator[tuple[str, Any, str]]:
    """Yields the choices: name, value and comment."""
    most = _most_images(converted)
    steps = -(-most // chosen.batch) * chosen.epochs
    objects_task = next((task for task in ('instance', 'detection') if task in converted), None)
    yield 'objects_task', objects_task, ''
    groups = {split: _groups(converted, split) for split in SPLITS}
    yield 'same_images', groups, 'tasks whose annotations are of the same images'
    yield 'size', chosen.size, 'pixels of the longer side that images are brought to'
    yield 'shape', chosen.shape, 'width and height of what is trained on, multiples of 32'
    yield 'crop', crop_of(chosen.shape), 'width and height of the part of an image that a step sees'
    if chosen.task == 'semantic':
        yield 'class_weight', class_weights(list(converted['semantic'].counts.values())), 'rare classes count more'
    if objects_task is not None:
        strides = strides_of(chosen.backbone)
        yield 'strides', strides, 'pixels of the image in a cell of each map, along an axis'
        yield 'anchors', anchors(converted[objects_task].boxes, chosen.size, strides[0]), 'times the strides'
        is_narrow = chosen.base_channels < 64
        yield (
            'proposals',
            200 if is_narrow else 300 if chosen.task == 'all' else 500,
            'boxes of an image that the first stage passes on in training',
        )
        yield 'samples', 128, 'of them that the second stage learns from'
        fullest = converted[objects_task].most
        if chosen.task != 'all':
            is_fast = strides[0] > _STRIDE
            fewest = (40 if is_fast else 100) if is_narrow else 500
            passed = int(np.clip((2 if is_fast else 3) * fullest, fewest, 1000))
            yield 'test_proposals', passed, f'the same in tests; the fullest image has {fullest} objects'
        yield 'detections', max(100, -(-3 * fullest // 2)), 'boxes that a prediction of an image has at most'
    is_flipped = 'pose' not in converted or converted['pose'].flip_pairs is not None
    yield 'flip_prob', 0.5 if is_flipped else 0.0, 'of images in training are flipped'
    yield 'batch_size', chosen.batch, ''
    yield 'workers', min(_WORKERS, _cores()), 'processes that load images, by the cores of the machine that wrote this'
    is_one_left = (
        chosen.size <= 16 * strides_of(chosen.backbone)[0] and chosen.batch < most and most % chosen.batch == 1
    )
    yield 'whole_epochs', -(-_WHOLE // most), 'the last ones, which see whole images; the others parts of four'
    yield 'drop_last', is_one_left, 'batch, if it has fewer: batch norm learns nothing of one small image'
    yield 'epochs', chosen.epochs, ''
    yield 'learning_rate', chosen.rate, ''
    yield 'warm_up', min(_WARM_UP, steps // 10), 'iterations; none with less than 2'
    yield 'backbone', {**chosen.backbone, **({'init_cfg': chosen.weights} if chosen.weights else {})}, ''
    first = chosen.base_channels * (4 if chosen.is_deep else 1)
    yield 'levels', [first, 2 * first, 4 * first, 8 * first], 'channels of its stages'
    yield 'width', first if chosen.is_deep else 2 * first, 'channels of what stands on them'


def _most_images(converted: dict[str, Converted]) -> int:
    """Returns the number of training images of the task that has most."""
    return max(conversion.splits.get('train', 1) for conversion in converted.values())


def _groups(converted: dict[str, Converted], split: str) -> list[list[str]]:
    """Returns groups of tasks that annotate the same images of a split, without tasks that have none there."""
    groups: list[list[str]] = []
    for name, conversion in converted.items():
        if split in conversion.files:
            group = next((group for group in groups if _is_joined(converted, group, name, split)), None)
            groups.append([name]) if group is None else group.append(name)
    return groups


def _cores() -> int:
    """Returns the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _is_joined(converted: dict[str, Converted], group: Sequence[str], name: str, split: str) -> bool:
    """Returns whether a task shares images with the first of a group and has no more people than the group has objects.

    A joined dataset matches people to some of the objects, by the numbers of their annotations.
    """
    is_shared = not set(converted[group[0]].paths[split]).isdisjoint(converted[name].paths[split])
    counts = [converted[task].annotations[split] for task in (*group, name) if task != 'semantic']
    return is_shared and counts == sorted(counts, reverse=True)
