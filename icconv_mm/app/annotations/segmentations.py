"""Segmentations in COCO's forms, polygons and RLE: checks, converts and rotates them, and computes boxes and areas.

pycocotools reads out of bounds, hangs or aborts for RLE that do not fill their image: it never receives any.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm.app.annotations.dataset import AnnotatedImage, Annotation, Dataset
from icconv_mm.datasets.image_files import oriented_size
from icconv_mm.datasets.reading import DatasetError, as_integer
from icconv_mm.datasets.segmentations import polygons_defect, segmentation_defect
from icconv_mm_runtime.coco import encode_rle

_MARGIN = 0.1  # share of the keypoints' longer side, added around them
_LEAST = 0.02  # share of the image's longer side: people seen from far away are one keypoint


def as_segmentation(
    given: Any, size: tuple[int, int], dataset: Dataset, where: str, image: AnnotatedImage | None = None
) -> list | dict | None:
    """Converts a segmentation or a mask [H, W] to polygons or compressed RLE; None if there is none or it is invalid.

    Args:
        given: Polygons, RLE in either form, a mask, or None.
        size: Width and height of the image.
        dataset: Records a warning for a defect.
        where: Location of the annotation.
        image: The image that loses an invalid mask.
    """
    from pycocotools.mask import area

    if given is None or (isinstance(given, list) and not given):
        return None
    width, height = size
    if isinstance(given, list):
        if not isinstance(given[0], (list, tuple)):
            given = [given]  # a single polygon without the outer list
        if len(given) > 1:
            given = [polygon for polygon in given if not (isinstance(polygon, list) and 0 < len(polygon) < 6)] or given
        if (defect := polygons_defect(given, height, width)) is None:
            return given
        defect = f'mask: {defect}'
    elif isinstance(given, np.ndarray):
        if given.any():
            return encode_rle(given)
        defect = 'the mask is empty'
    else:
        if (defect := segmentation_defect(given, height, width)) is None:
            rle = _compressed(given)
            if area(rle):
                return rle
            defect = 'the mask is empty'
        else:
            defect = f'mask: {defect}'
    path, split = (None, '') if image is None else (image.path, image.split)
    dataset.leave_out(where, defect, path, split)
    return None


def _compressed(rle: dict) -> dict:
    from pycocotools.mask import frPyObjects

    if not isinstance(rle['counts'], list):
        return rle
    converted = frPyObjects(rle, *rle['size'])
    return {'size': list(rle['size']), 'counts': converted['counts'].decode('ascii')}


def rle_of(segmentation: list | dict, size: tuple[int, int]) -> dict:
    """Returns a segmentation as the RLE that pycocotools reads."""
    from pycocotools.mask import frPyObjects, merge

    width, height = size
    return merge(frPyObjects(segmentation, height, width)) if isinstance(segmentation, list) else segmentation


def mask_of(segmentation: list | dict, size: tuple[int, int]) -> np.ndarray:
    """Returns the mask [H, W] of a segmentation, uint8."""
    from pycocotools.mask import decode

    return decode(rle_of(segmentation, size))


def is_area(area: Any, size: tuple[int, int]) -> bool:
    """Returns whether an object on an image of this size can have this area."""
    return isinstance(area, (int, float)) and 0 < area <= size[0] * size[1]  # False for NaN


def measure(annotation: Annotation, size: tuple[int, int]) -> str:
    """Sets box and area from the segmentation, else from the keypoints, if the annotation has no valid ones.

    Returns:
        The defect of the annotation's own box, or ''.
    """
    problem = ''
    if annotation.box is not None and not (annotation.box[2] > 0 and annotation.box[3] > 0):
        around = None if annotation.keypoints is None else box_of_keypoints(annotation.keypoints, size)
        if annotation.segmentation is not None or around is not None:
            what = 'mask' if annotation.segmentation is not None else 'keypoints'
            has = f'{annotation.name}: the box has {annotation.box[2]:g} x {annotation.box[3]:g} pixels'
            problem = f'{has}: that of its {what} is taken'
            annotation.box = None if annotation.segmentation is not None else around
    if annotation.area is not None and not is_area(annotation.area, size):
        annotation.area = None
    if annotation.segmentation is not None and (annotation.box is None or annotation.area is None):
        from pycocotools.mask import area, toBbox

        runs = rle_of(annotation.segmentation, size)
        annotation.box = [float(value) for value in toBbox(runs)] if annotation.box is None else annotation.box
        annotation.area = annotation.area or float(area(runs)) or None
    if annotation.area is None:
        annotation.guessed = True
        annotation.area = annotation.box[2] * annotation.box[3]
    return problem


def written_size(width: Any, height: Any, fields: Sequence[str]) -> tuple[int, int] | None:
    """Returns width and height of an image as its annotations give them; None if they are missing or 0.

    Args:
        width, height: Numbers or their text.
        fields: Their names, for the error.

    Raises:
        DatasetError: They are not whole numbers of 0 or more.
    """
    sides = [as_integer(value or 0, field) for value, field in zip((width, height), fields)]
    for side, field in zip(sides, fields):
        if side < 0:
            raise DatasetError(f'{field} is {side}, expected pixels')
    return (sides[0], sides[1]) if min(sides) > 0 else None


def box_of_keypoints(keypoints: Sequence[float], size: tuple[int, int]) -> list[float] | None:
    """Returns the box around labelled keypoints (x, y, visibility) with a margin, inside the image; None if none is.

    Keypoints outside the image, as after a crop, do not count.
    """
    points = np.asarray(keypoints, dtype=float).reshape(-1, 3)
    points = points[(points[:, 2] > 0) & ~is_outside(points, size), :2]
    if len(points) == 0:
        return None
    low, high = points.min(0), points.max(0)
    margin = max(_MARGIN * float((high - low).max()), _LEAST * max(size))
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, size)
    return [float(value) for value in (*low, *(high - low))]


def is_outside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns whether each point [n, 2 or more] lies outside an image of this width and height, by over a pixel."""
    return ((points[:, :2] < -1) | (points[:, :2] > np.add(size, 1))).any(1)


def rotate(annotation: Annotation, orientation: int, size: tuple[int, int]) -> None:
    """Moves an annotation from the unrotated image, of this size, to the image rotated by EXIF orientation 5 to 8."""
    width, height = size

    def move(x: float, y: float) -> tuple[float, float]:
        across = height - y if orientation in (6, 7) else y
        return across, (width - x if orientation in (7, 8) else x)

    if annotation.box is not None:
        x, y, w, h = annotation.box
        (x1, y1), (x2, y2) = move(x, y), move(x + w, y + h)
        annotation.box = [min(x1, x2), min(y1, y2), h, w]
    if isinstance(annotation.segmentation, list):
        annotation.segmentation = [
            [value for x, y in zip(polygon[::2], polygon[1::2]) for value in move(x, y)]
            for polygon in annotation.segmentation
        ]
    elif annotation.segmentation is not None:
        mask = mask_of(annotation.segmentation, size).T
        mask = mask[:, ::-1] if orientation in (6, 7) else mask
        annotation.segmentation = encode_rle(mask[::-1] if orientation in (7, 8) else mask)
    if annotation.keypoints is not None:
        triples = zip(annotation.keypoints[::3], annotation.keypoints[1::3], annotation.keypoints[2::3])
        annotation.keypoints = [value for x, y, v in triples for value in ((*move(x, y), v) if v else (0, 0, 0))]


def fit_to_image(dataset: Dataset, image: AnnotatedImage, written: tuple[int, int] | None, file: Path) -> None:
    """Rotates annotations of the unrotated image, as images are loaded with their EXIF rotation.

    An image whose annotations give another size is skipped.

    Args:
        dataset: Records a warning for a rotation.
        image: The image with the annotations of one file.
        written: Width and height of the image in that file, or None.
        file: The annotation file.
    """
    if written is None or written == image.size or image.problem:
        return
    width, height = written
    size, turn = oriented_size(image.path)
    if turn in (5, 6, 7, 8) and (height, width) == size:
        for annotation in image.annotations or ():
            rotate(annotation, turn, (width, height))
        dataset.warn(
            image.path, f'EXIF rotates it (orientation {turn}), but not the annotations of {file.name}: rotated'
        )
    else:
        image.problem = f'is {size[0]} x {size[1]}, but {file.name} says {width} x {height}'


def oriented_box(center: Sequence[float], size: Sequence[float], degrees: float) -> tuple[list[float], list[float]]:
    """Returns the axis-aligned box around a box that is rotated clockwise, and the polygon of its corners."""
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) * size
    corners = rotate_points(corners, degrees) + center
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    return [left, top, right - left, bottom - top], corners.ravel().tolist()


def rotate_points(points: np.ndarray, degrees: float) -> np.ndarray:
    """Returns points [n, 2] rotated clockwise around 0."""
    turn = np.deg2rad(degrees)
    return points @ np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
