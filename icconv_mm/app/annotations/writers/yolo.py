"""Writes YOLO as Ultralytics reads it: ``data.yaml``, and a text file beside each image's folder."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import yaml

from icconv_mm.app.annotations.dataset import SPLITS, Annotation, Dataset, assign_splits
from icconv_mm.app.annotations.segmentations import mask_of
from icconv_mm.app.annotations.writers.images import into_new_folder, place_images, usable_images, warn_of_losses
from icconv_mm.datasets.flips import flips_of
from icconv_mm.files import atomic_write


@into_new_folder
def write_yolo(dataset: Dataset, folder: Path, copy: bool = False) -> Path:
    """Writes ``data.yaml``, ``images/SPLIT`` and ``labels/SPLIT``: keypoints, else masks as polygons, else boxes.

    YOLO has one polygon for an object: its pieces are joined by lines, and holes are filled. Crowds are left out. If
    there is no split for training and validation, one is made as for a training.

    Args:
        dataset: The dataset; it records a warning for what YOLO cannot hold.
        folder: A new or empty folder.
        copy: Whether images are copied; else they are linked.

    Raises:
        ArgumentError: The folder is not empty, or there are no objects.
    """
    tasks = dataset.tasks()
    usable = usable_images(dataset, 'YOLO', 'detection')
    images = [replace(image) for image in usable if image.annotations is not None]
    if note := assign_splits(images):  # of copies
        dataset.notes.append(note)
    kind = 'pose' if 'pose' in tasks else 'instance' if 'instance' in tasks else 'detection'
    content: dict = {'names': dict(enumerate(dataset.classes))}
    keypoints: list[str] = []
    if kind == 'pose':
        posed = {annotation.name for _, annotation in dataset.annotations() if annotation.keypoints is not None}
        keypoints, _ = dataset.keypoints_of(*(name for name in dataset.classes if name in posed))
        content['kpt_shape'] = [len(keypoints), 3]
        if flips := _flips(dataset, keypoints):
            content['flip_idx'] = flips
        if len(dataset.sigmas) == len(keypoints):
            content['kpt_oks_sigmas'] = dataset.sigmas
        content |= {'kpt_names': {number: list(keypoints) for number in content['names']}}
    content |= {split: f'images/{split}' for split in SPLITS if any(image.split == split for image in images)}
    if 'val' not in content:  # Ultralytics requires it
        content['val'] = content.get('test', content.get('train'))
        dataset.warn(dataset.location, f'no split for validation: data.yaml names {content["val"]}')
    by_path = {image.path: image for image in images}
    for path, name in place_images(images, folder / 'images', copy, by_split=True, are_stems_unique=True).items():
        image = by_path[path]
        lines = [_line(dataset, annotation, image.size, kind, len(keypoints)) for annotation in image.annotations]
        with atomic_write((folder / 'labels' / name).with_suffix('.txt')) as file:
            file.write(''.join(f'{line}\n' for line in lines if line).encode())
    annotations = [annotation for image in images for annotation in image.annotations]
    masks = [annotation.segmentation for annotation in annotations if annotation.segmentation is not None]
    changed = sum(map(_is_changed, masks)) if kind == 'instance' else 0
    losses = [
        (len(masks) if kind == 'pose' else 0, 'masks beside keypoints', 'not written'),
        (changed, 'masks of several pieces or with holes', 'written as one polygon'),
        (sum(image.seg_map is not None for image in dataset), 'segmentation maps', 'not written'),
        (sum(annotation.score is not None for annotation in annotations), 'scores', 'not written'),
    ]
    warn_of_losses(dataset, 'YOLO', losses)
    with atomic_write(folder / 'data.yaml') as file:
        file.write(yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())
    return folder


def _is_changed(segmentation: list | dict) -> bool:
    """Returns whether a mask has several pieces or a hole."""
    if isinstance(segmentation, list):
        return len(segmentation) > 1
    mask = mask_of(segmentation, segmentation['size'][::-1])
    _, levels = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return len(levels[0]) > 1


def _flips(dataset: Dataset, names: list[str]) -> list[int]:
    """Returns the index that each keypoint has after a flip; an empty list, without which nothing flips, if unknown."""
    if (pairs := flips_of(names, dataset.flip_indices).pairs) is None:
        return []
    swap = {one: other for pair in pairs for one, other in (pair, pair[::-1])}
    return [names.index(swap.get(name, name)) for name in names]


def _line(dataset: Dataset, annotation: Annotation, size: tuple[int, int], kind: str, keypoints: int) -> str:
    """Returns the line of an object; '' with a warning if YOLO cannot hold it."""
    if annotation.crowd or (kind == 'instance' and not annotation.segmentation):
        what = 'is a crowd or ignored' if annotation.crowd else 'has no mask'
        dataset.warn(annotation.location, f'{what}, which YOLO cannot hold: not written')
        return ''
    width, height = size
    x, y, w, h = annotation.box
    values = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
    if kind == 'pose':
        points = np.array(annotation.keypoints or [0] * 3 * keypoints, dtype=float).reshape(-1, 3)
        values += (points / (width, height, 1)).ravel().tolist()
    elif kind == 'instance':
        given = annotation.segmentation
        polygons = [np.reshape(value, (-1, 2)) for value in given] if isinstance(given, list) else None
        polygon = np.concatenate(list(_closed_rings(polygons or polygons_of(mask_of(given, size)))))
        values = (polygon / size).clip(0, 1).ravel().tolist()
    return ' '.join([str(dataset.classes.index(annotation.name)), *(f'{value:.9g}' for value in values)])


def polygons_of(mask: np.ndarray) -> list[np.ndarray]:
    """Returns polygons [n, 2] along the edges of the pixels of a mask [H, W], a piece each, without its holes."""
    # At twice the resolution, borders of pixels lie between contour points, which OpenCV takes at pixel centres.
    doubled = cv2.resize(np.asarray(mask, np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    pieces = [contour[:, 0] for contour in contours]
    return [_simplified((piece + (piece % 2)) / 2) for piece in sorted(pieces, key=len, reverse=True)]


def _simplified(points: np.ndarray) -> np.ndarray:
    """Returns a polygon without repeated points and points on a straight line."""
    points = points[np.any(points != np.roll(points, 1, 0), axis=1)]
    before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    return points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _closed_rings(polygons: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the polygons, each followed by its first point, and the way back to the first one."""
    for polygon in polygons:
        yield polygon
        if len(polygons) > 1:
            yield polygon[:1]
    for polygon in reversed(polygons[:-1]):
        yield polygon[:1]
