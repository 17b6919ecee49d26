"""The demo's picture: ground truth and predictions side by side, one row per task."""

import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools.coco import COCO

from demos.tasks import JOINTS, LABELS, MASKS, DemoTask, Kind
from icconv_mm.datasets.miniature import CLASSES, PALETTE, SEMANTIC_PALETTE, SKELETON

_TILE = 288  # pixels of one drawn picture
_EXAMPLES = 3
_MARGIN = 26  # for titles
_MAX_BYTES = 400_000


def draw_picture(predictions: Mapping[DemoTask, Path], data: Path, path: Path) -> None:
    """Write a JPEG with ground truth and predictions of the same few validation pictures for every task.

    Args:
        predictions: Per task, the COCO results file or the folder of label maps that its evaluator wrote.
        data: The miniature dataset.
        path: The file to write; at most 400 kB.
    """
    names = 'instances', 'person_keypoints'
    with redirect_stdout(None):  # it prints what it reads
        things, people = (COCO(data / f'annotations/{name}_val.json') for name in names)
    examples = _choose(things)
    rows = [np.concatenate([_text(name) for name in ('ground truth', 'prediction') * len(examples)], axis=1)]
    for task, found in predictions.items():
        tiles = []
        for image in examples:
            picture = cv2.imread(str(data / 'val' / image['file_name']))
            if task.kind is LABELS:
                name = Path(image['file_name']).stem + '.png'
                tiles += [_draw_labels(picture, folder / name) for folder in (data / 'semantic/val', found)]
            else:
                truth = people if task.kind is JOINTS else things
                both = truth.imgToAnns[image['id']], _results(found, image, task.kind)
                tiles += [_draw_objects(picture, objects, task.kind, truth) for objects in both]
        pictures = np.concatenate(tiles, axis=1)
        rows += [_text(task.title, pictures.shape[1], bold=True), pictures]
    _write_small(path, np.concatenate(rows))


def draw_joint_picture(folder: Path, data: Path, path: Path) -> None:
    """Write a JPEG in which each of a few scenes appears once, with everything predicted beside the truth.

    Args:
        folder: Holds the COCO results of boxes, masks and joints, and the label maps.
        data: The miniature dataset.
        path: The file to write; at most 400 kB.
    """
    names = 'instances', 'person_keypoints'
    with redirect_stdout(None):
        things, people = (COCO(data / f'annotations/{name}_val.json') for name in names)
    rows = [np.concatenate([_text('ground truth'), _text('prediction')], axis=1)]
    for image in _choose(things):
        picture = cv2.imread(str(data / 'val' / image['file_name']))
        name = Path(image['file_name']).stem + '.png'
        truth = things.imgToAnns[image['id']], people.imgToAnns[image['id']], data / 'semantic/val' / name
        found = (
            _results(folder / MASKS.written, image, MASKS),
            _results(folder / JOINTS.written, image, JOINTS),
            folder / LABELS.written / name,
        )
        tiles = []
        for objects, persons, labels in (truth, found):
            tile = _draw_labels(picture, labels, strength=0.35)
            tile = _draw_objects(picture, objects, MASKS, things, tile)
            tiles.append(_draw_objects(picture, persons, JOINTS, people, tile))
        rows.append(np.concatenate(tiles, axis=1))
    _write_small(path, np.concatenate(rows))


def _choose(things: COCO) -> list[dict]:
    """The first pictures with somebody in them and a handful of objects, whatever was found there."""
    images = things.dataset['images']
    labels = {image['id']: [each['category_id'] for each in things.imgToAnns[image['id']]] for image in images}
    chosen = [image for image in images if 4 <= len(labels[image['id']]) <= 7 and 1 in labels[image['id']]]
    return (chosen or images)[:_EXAMPLES]


def _results(path: Path, image: dict, kind: Kind) -> list[dict]:
    least = 0.2 if kind is JOINTS else 0.3  # poses score the mean height of their joints' peaks
    found = json.loads(path.read_text()) if path.is_file() else []  # there is no file if nothing was detected
    return [each for each in found if each['image_id'] == image['id'] and each['score'] >= least]


def _draw_objects(
    picture: np.ndarray,
    objects: Sequence[dict[str, Any]],
    kind: Kind,
    coco: COCO,
    tile: np.ndarray | None = None,
) -> np.ndarray:
    """Boxes with names, and masks or joints as ``kind`` says, on the picture enlarged to a tile, or on ``tile``."""
    height, width = picture.shape[:2]
    factor = _TILE / width
    if tile is None:
        tile = cv2.resize(picture, (_TILE, round(factor * height)), interpolation=cv2.INTER_CUBIC)
    for each in objects:
        color = PALETTE[each['category_id'] - 1][::-1]
        if kind is MASKS:
            mask = cv2.resize(coco.annToMask(each), tile.shape[1::-1]) > 0
            tile[mask] = 0.45 * tile[mask] + 0.55 * np.array(color)
        if kind is JOINTS:
            _draw_joints(tile, np.array(each['keypoints']).reshape(-1, 3), factor, color)
        else:
            _draw_box(tile, np.array(each['bbox']) * factor, CLASSES[each['category_id'] - 1], color)
    return tile


def _draw_box(tile: np.ndarray, box: np.ndarray, name: str, color: tuple[int, ...]) -> None:
    x, y, *_ = whole = np.rint(box).astype(int).tolist()
    cv2.rectangle(tile, whole, color, 2)
    (width, height), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    base = max(y, height + 5)
    cv2.rectangle(tile, (x, base - height - 5), (x + width + 4, base), color, -1)
    cv2.putText(tile, name, (x + 2, base - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)


def _draw_joints(tile: np.ndarray, joints: np.ndarray, factor: float, color: tuple[int, ...]) -> None:
    points = np.rint(joints[:, :2] * factor).astype(int).tolist()
    shown = joints[:, 2] > 0
    for a, b in SKELETON:
        if shown[a - 1] and shown[b - 1]:
            cv2.line(tile, points[a - 1], points[b - 1], color, 2, cv2.LINE_AA)
    for point, visible in zip(points, shown):
        if visible:
            cv2.circle(tile, point, 3, (255, 255, 255), -1, cv2.LINE_AA)


def _draw_labels(picture: np.ndarray, path: Path, strength: float = 0.7) -> np.ndarray:
    """The label map of a file over the picture."""
    tile = cv2.resize(picture, (_TILE, round(_TILE * picture.shape[0] / picture.shape[1])))
    labels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    labels = cv2.resize(labels, tile.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    colors = np.array(SEMANTIC_PALETTE, np.uint8)[:, ::-1][labels]
    return cv2.addWeighted(tile, 1 - strength, colors, strength, 0)


def _text(text: str, width: int = _TILE, bold: bool = False) -> np.ndarray:
    strip = np.full((_MARGIN, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1 + bold, cv2.LINE_AA)
    return strip


def _write_small(path: Path, picture: np.ndarray) -> None:
    """Write a JPEG at the best quality that stays below the limit."""
    for quality in range(90, 0, -10):
        _, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= _MAX_BYTES:
            break
    path.write_bytes(data.tobytes())
