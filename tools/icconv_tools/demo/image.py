"""The image of the demo: a column per scene, the ground truth above the predictions of each network or set."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools.coco import COCO

from icconv_mm_runtime.drawing import Drawing, DrawnObject, draw
from icconv_tools.demo.tasks import BOXES, KEYPOINTS, LABELS, MASKS, Kind
from icconv_tools.miniature import CLASSES, PALETTE, SEMANTIC_PALETTE, SKELETON

_TILE = 384  # pixels of one drawn scene: words have a least size, and are read on a page that shows 900 pixels
_EXAMPLES = 3
_MARGIN = 34  # for titles
_SEEN = 0.5  # of a keypoint's score: the height of its peak in the heatmap
_MAX_BYTES = 400_000

# What a column shows: for each kind a function that gives a scene's segmentation map, or its objects in COCO's form.
_Source = Callable[[dict], Any]


def draw_image(columns: Mapping[str, Mapping[Kind, Path]], data: Path, path: Path) -> None:
    """Write a JPEG in which each of a few validation scenes appears once, with all predictions below the truth.

    Args:
        columns: By its title what a row shows: for each kind the COCO results file or the folder of segmentation maps
            that an evaluator wrote. The truth comes first, and shows all kinds that the others have.
        data: The miniature dataset.
        path: The file to write; at most 400 kB.
    """
    with redirect_stdout(None):  # it prints what it reads
        objects, people = (COCO(data / f'annotations/{name}_val.json') for name in ('instances', 'person_keypoints'))
    truth = {LABELS: _maps(data / 'semantic/val'), KEYPOINTS: lambda image: people.imgToAnns[image['id']]}
    truth |= dict.fromkeys((MASKS, BOXES), lambda image: objects.imgToAnns[image['id']])
    kinds = {kind for part in columns.values() for kind in part}
    shown = {'ground truth': {kind: truth[kind] for kind in kinds}}
    for title, part in columns.items():
        shown[title] = {kind: _maps(file) if kind is LABELS else _objects(file, kind) for kind, file in part.items()}
    images = _choose(objects)
    scenes = [cv2.imread(str(data / 'val' / image['file_name'])) for image in images]
    rows = []
    for title, sources in shown.items():
        tiles = [_draw(scene, image, sources, objects) for scene, image in zip(scenes, images)]
        rows += [_text(title, _TILE * len(tiles)), np.concatenate(tiles, axis=1)]
    _write_small(path, np.concatenate(rows))


def _choose(objects: COCO) -> list[dict]:
    """The first images with somebody in them and a handful of objects, whatever was found there."""
    images = objects.dataset['images']
    labels = {
        image['id']: [annotation['category_id'] for annotation in objects.imgToAnns[image['id']]] for image in images
    }
    chosen = [image for image in images if 4 <= len(labels[image['id']]) <= 7 and 1 in labels[image['id']]]
    return (chosen or images)[:_EXAMPLES]


def _maps(folder: Path) -> _Source:
    return lambda image: cv2.imread(str(folder / Path(image['file_name']).with_suffix('.png')), cv2.IMREAD_GRAYSCALE)


def _objects(path: Path, kind: Kind) -> _Source:
    """The confident ones of a results file, which there is none of if nothing was detected."""
    least = 0.2 if kind is KEYPOINTS else 0.5  # poses score the mean height of their keypoints' peaks
    objects = defaultdict(list)
    for load in json.loads(path.read_text()) if path.is_file() else ():
        if load['score'] >= least:
            objects[load['image_id']].append(load)
    return lambda image: objects[image['id']]


def _draw(scene: np.ndarray, image: dict, sources: Mapping[Kind, _Source], coco: COCO) -> np.ndarray:
    """A scene enlarged to a tile, with its segmentation map, masks, boxes with names, and keypoints."""
    factor = _TILE / scene.shape[1]
    tile = cv2.resize(scene, (_TILE, round(factor * scene.shape[0])), interpolation=cv2.INTER_CUBIC)
    drawing = Drawing(colors=SEMANTIC_PALETTE, shape=scene.shape[:2])
    if LABELS in sources:
        drawing.seg_map = sources[LABELS](image)
    for kind in (MASKS, KEYPOINTS, BOXES):
        for annotation in sources[kind](image) if kind in sources else ():
            item = DrawnObject(PALETTE[annotation['category_id'] - 1])
            if kind is MASKS:  # smoothed as the scene is
                smooth = cv2.GaussianBlur(
                    cv2.resize(coco.annToMask(annotation) * 255, tile.shape[1::-1]), (0, 0), factor
                )
                item.mask = smooth > 127
            elif kind is KEYPOINTS:
                keypoints = np.array(annotation['keypoints']).reshape(-1, 3)
                item.keypoints, item.skeleton = keypoints[:, :2], [(a - 1, b - 1) for a, b in SKELETON]
                item.shown = keypoints[:, 2] > (_SEEN if 'score' in annotation else 0)  # an annotation has 1 or 2
            else:
                x, y, width, height = annotation['bbox']
                item.box, item.text = (x, y, x + width, y + height), CLASSES[annotation['category_id'] - 1]
            drawing.objects.append(item)
    return draw(tile, drawing)


def _text(text: str, width: int) -> np.ndarray:
    strip = np.full((_MARGIN, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (30, 30, 30), 1, cv2.LINE_AA)
    return strip


def _write_small(path: Path, image: np.ndarray) -> None:
    """Write a JPEG at the best quality that stays below the limit."""
    for quality in range(90, 0, -10):
        _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= _MAX_BYTES:
            break
    path.write_bytes(data.tobytes())
