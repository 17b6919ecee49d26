"""The text of a config for one's own pictures: what a person edits on top, then the files of ``own_data/written``."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat
from typing import Any

import numpy as np

from icconv_mm.data.found import SPLITS
from icconv_mm.data.prepared import Prepared
from icconv_mm.data.skeleton import sigmas_of
from icconv_mm.files import command_of, configs_folder
from icconv_mm_runtime.drawing import palette

_WARM_UP = 200  # iterations, and a tenth of the training at most
_LEAST_CROP = 256  # pixels
_SECTION = re.compile(r'# --- (.+) ---')
BEST = {
    'boxes': 'coco/bbox_mAP',
    'masks': 'coco/segm_mAP',
    'semantic': 'mIoU',
    'pose': 'coco/AP',
    'classes': 'accuracy/top1',
}


@dataclass(frozen=True)
class Choices:
    """What a written config says beside its data.

    Attributes:
        task, epochs: As of :func:`icconv_mm.apis.config_for`.
        size: Pixels of the longer side that pictures are brought to.
        shape: Width and height of what is trained on, multiples of 32, in the proportion of the pictures.
        backbone: Its config.
        is_deep: Whether it has bottlenecks: four times the channels.
        batch: Pictures of a step.
        rate: Learning rate.
        weights: ``init_cfg`` of the backbone, or None.
        patience: Validations without progress that end the training; None for no end.
    """

    task: str
    epochs: int
    size: int
    shape: tuple[int, int]
    backbone: dict
    is_deep: bool
    batch: int
    rate: float
    weights: dict | None
    patience: int | None


def config_text(chosen: Choices, prepared: dict[str, Prepared], folder: Path, places: str) -> str:
    """The whole file: commands, variables with what was chosen, and below them what follows from these."""
    base = configs_folder() / '_base_' / 'own_data'
    written = base / 'written'
    name = 'things' if chosen.task in ('boxes', 'masks') else chosen.task
    body = [
        *_kept((written / f'{name}.py').read_text(), prepared),
        '',
        *(written / 'end.py').read_text().splitlines(),
        *_stopping(chosen, prepared),
    ]
    used = set(re.findall(r'\w+', '\n'.join(body)))
    variables = [
        _literal(name, value, comment)
        for name, value, comment in (*_labels(chosen, prepared), *_numbers(chosen, prepared))
        if name in used
    ]
    tools = (('browse_dataset', '--not-show', '--out-dir', f'{folder}/browse'), ('train', '--work-dir', str(folder)))
    lines = [
        f'# {", ".join(prepared)} of {places}. Edit it, look at what is learned, train, test:',
        *(
            f'#   {command_of(tool, f"{folder}.py", *options).strip("`")}'
            for tool, *options in (*tools, ('test', 'CHECKPOINT'))
        ),
        _literal('_base_', str(base / f'{chosen.task}.py')),
        '',
        *variables,
        '',
        *body,
    ]
    return '\n'.join(lines) + '\n'


def places_in(text: str) -> str:
    """The places that a written config is of; '' if it does not say them."""
    first = re.match(r'# [\w, ]+? of (.+)\. Edit it, ', text)
    return first[1] if first else ''


def anchors(boxes: np.ndarray, size: int) -> dict[str, list]:
    """Scale and ratios of anchors on strides 4 to 64.

    Args:
        boxes: Width and height of things in shares of the longer side of their pictures, [m, 2].
        size: Pixels of the longer side.
    """
    if not len(boxes):
        return dict(scales=[8], ratios=[0.5, 1.0, 2.0])
    least = float(np.percentile(np.sqrt(boxes.prod(1)) * size, 5))
    scale = next((scale for scale in (8, 4) if 4 * scale <= 1.3 * least), 2)
    low, high = np.percentile(boxes[:, 1] / boxes[:, 0], [5, 95])
    ratios = [0.5, 1.0, 2.0]
    if low < 0.3:
        ratios.insert(0, round(float(max(low, 0.1)), 2))
    if high > 3.3:
        ratios.append(round(float(min(high, 10)), 2))
    return dict(scales=[scale], ratios=ratios)


def crop_of(shape: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the part of a label map that a step sees: two thirds of a side, but 256 pixels of it."""
    return tuple(min(side, max(_LEAST_CROP, round(side * 2 / 3 / 32) * 32)) for side in shape)


def class_weights(shares: Sequence[float]) -> list[float]:
    """Weights of classes by their shares of the pixels, 1 for the mean pixel (ENet, https://arxiv.org/abs/1606.02147)."""
    weights = [1 / math.log(1.02 + share) for share in shares]
    mean = sum(share * weight for share, weight in zip(shares, weights)) / (sum(shares) or 1)
    return [round(weight / mean, 2) for weight in weights]


def _kept(text: str, prepared: dict[str, Prepared]) -> Iterator[str]:
    """The lines of a file without the sections, ``# --- TASK, TASK ---``, of tasks that are not learned."""
    is_kept = True
    for line in text.splitlines():
        if heading := _SECTION.fullmatch(line):
            is_kept = heading[1] == 'all' or not prepared.keys().isdisjoint(heading[1].split(', '))
        elif is_kept:
            yield line


def _literal(name: str, value: Any, comment: str = '') -> str:
    """``name = value  # comment`` in lines of at most 120 characters; a dict as a call of ``dict``."""
    text = repr(value)
    if isinstance(value, dict):
        members = [f'{key}={each!r}' for key, each in value.items()]
        text = f'dict({", ".join(members)})'
    line = f'{name} = {text}{f"  # {comment}" if comment else ""}'
    if len(line) <= 120:
        return line
    if isinstance(value, dict):
        members = [_literal(key, each).replace(' = ', '=', 1).replace('\n', '\n    ') for key, each in value.items()]
        text = ''.join(['dict(\n', *(f'    {member},\n' for member in members), ')'])
    else:
        text = pformat(value, width=112 - len(name), compact=True).replace('\n', '\n' + ' ' * (len(name) + 3))
    return f'# {comment}\n{name} = {text}' if comment else f'{name} = {text}'


def _labels(chosen: Choices, prepared: dict[str, Prepared]) -> Iterator[tuple[str, Any, str]]:
    """Files, classes and keypoints: name, value and comment; beside things, the names end in the task."""
    for task, made in prepared.items():
        end = f'_{task}' if chosen.task == 'all' and task in ('semantic', 'pose') else ''
        yield f'images{end}', f'{made.root}{os.sep}', 'the labels name files below it'
        for split in SPLITS:
            file = made.files.get(split)
            yield f'{split}_labels{end}', file and str(file), '' if file else 'no picture of this split has any'
        if task == 'pose':
            keypoints = dict(
                classes=(made.classes[0],),
                keypoints=tuple(made.keypoints),
                skeleton=made.skeleton,
                flip_pairs=made.flips or [],
                sigmas=sigmas_of(made.keypoints),
            )
            comment = 'sigmas: how exact each can be labelled, in shares of the size of its owner'
            yield f'keypoints{end}', keypoints, comment
        else:
            yield f'classes{end}', tuple(made.classes), ''
            yield f'palette{end}', palette(len(made.classes)), ''


def _numbers(chosen: Choices, prepared: dict[str, Prepared]) -> Iterator[tuple[str, Any, str]]:
    """What was chosen: name, value and comment."""
    most = max(made.splits.get('train', 1) for made in prepared.values())
    steps = -(-most // chosen.batch) * chosen.epochs
    things = next((task for task in ('masks', 'boxes') if task in prepared), None)
    yield 'things', things, ''
    groups = {split: _groups(prepared, split) for split in SPLITS}
    yield 'same_pictures', groups, 'tasks whose labels are of the same pictures'
    yield 'size', chosen.size, 'pixels of the longer side that pictures are brought to'
    yield 'shape', chosen.shape, 'width and height of what is trained on, multiples of 32'
    yield 'crop', crop_of(chosen.shape), 'width and height of the part of a picture that a step sees'
    if chosen.task == 'semantic':
        yield 'class_weight', class_weights(list(prepared['semantic'].counts.values())), 'rare classes count more'
    if things is not None:
        yield 'anchors', anchors(prepared[things].boxes, chosen.size), 'on strides 4 to 64'
    is_mirrored = 'pose' not in prepared or prepared['pose'].flips is not None
    yield 'flip_prob', 0.5 if is_mirrored else 0.0, 'of pictures in training are mirrored'
    yield 'batch_size', chosen.batch, ''
    yield 'epochs', chosen.epochs, ''
    yield 'learning_rate', chosen.rate, ''
    yield 'warm_up', max(1, min(_WARM_UP, steps // 10)), 'iterations'
    yield 'backbone', {**chosen.backbone, **({'init_cfg': chosen.weights} if chosen.weights else {})}, ''
    yield 'levels', [256, 512, 1024, 2048] if chosen.is_deep else [64, 128, 256, 512], 'channels of its stages'
    yield 'width', 256 if chosen.is_deep else 128, 'channels of what stands on them'


def _groups(prepared: dict[str, Prepared], split: str) -> list[list[str]]:
    """Tasks whose labels of a split are of the same pictures, together; without those that have none there."""
    groups: list[list[str]] = []
    for name, made in prepared.items():
        if split in made.files:
            group = next((each for each in groups if _is_joined(prepared, each, name, split)), None)
            groups.append([name]) if group is None else group.append(name)
    return groups


def _is_joined(prepared: dict[str, Prepared], group: Sequence[str], name: str, split: str) -> bool:
    """Whether a task shares pictures with the first of a group, and people are not more than the things in it.

    In a joined set people are taken for some of the things, by the numbers of their labels.
    """
    is_shared = not set(prepared[group[0]].paths[split]).isdisjoint(prepared[name].paths[split])
    counts = [prepared[each].things[split] for each in (*group, name) if each != 'semantic']
    return is_shared and counts == sorted(counts, reverse=True)


def _stopping(chosen: Choices, prepared: dict[str, Prepared]) -> Iterator[str]:
    """What decides which checkpoint is the best, and when there is no progress."""
    first = next(task for task, made in prepared.items() if 'val' in made.files)
    best = BEST.get(chosen.task) or f'{first}/{BEST[first]}'
    if chosen.task == 'all':
        yield f'default_hooks = dict(checkpoint=dict(save_best={best!r}))'
    if chosen.patience is not None:
        rule = f"dict(type='EarlyStoppingHook', monitor={best!r}, rule='greater', patience={chosen.patience})"
        yield f'custom_hooks = [{rule}]'
