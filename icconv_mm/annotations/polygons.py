"""Segmentations of objects in COCO's forms: made, turned, and as boxes and areas."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm.annotations.dataset import AnnotatedImage, Annotation, Dataset
from icconv_mm.annotations.images_on_disk import oriented_size
from icconv_mm.annotations.reading import DatasetError, as_integer
from icconv_mm.annotations.segmentations import segmentation_defect
from icconv_mm.errors import InputError
from icconv_mm_runtime.coco import encode_rle

_MARGIN = 0.1  # of the longer side of the keypoints, around them
_LEAST = 0.02  # of the longer side of the image: people seen from far away are one keypoint


def as_segmentation(
    given: Any, size: tuple[int, int], dataset: Dataset, where: str, image: AnnotatedImage | None = None
) -> list | dict | None:
    """A segmentation or a mask [H, W] as polygons or compressed RLE; None, and a word, if there is none.

    Args:
        given: Polygons, RLE in either form, a mask, or nothing.
        size: Width and height of the image.
        dataset: Takes down what is wrong.
        where: Place of the label.
        image: That which loses a mask that cannot be.
    """
    path, split = (None, '') if image is None else (image.path, image.split)
    if given is None or (isinstance(given, list) and not given):
        return None
    if isinstance(given, np.ndarray):
        if not given.any():
            dataset.leave_out(where, 'the mask is empty', path, split)
            return None
        return encode_rle(given)
    if isinstance(given, list) and given and not isinstance(given[0], (list, tuple)):
        given = [given]  # one polygon that is not in a list
    if isinstance(given, list):
        given = [polygon for polygon in given if not (isinstance(polygon, list) and 0 < len(polygon) < 6)] or given
    width, height = size
    if (defect := segmentation_defect(given, height, width)) is not None:
        dataset.leave_out(where, f'mask: {defect}', path, split)
        return None
    return _compressed(given) if isinstance(given, dict) else given


def _compressed(rle: dict) -> dict:
    from pycocotools.mask import frPyObjects

    if not isinstance(rle['counts'], list):
        return rle
    made = frPyObjects(rle, *rle['size'])
    return {'size': list(rle['size']), 'counts': made['counts'].decode('ascii')}


def rle_of(segmentation: list | dict, size: tuple[int, int]) -> dict:
    """A segmentation as the RLE that pycocotools reads."""
    from pycocotools.mask import frPyObjects, merge

    width, height = size
    return merge(frPyObjects(segmentation, height, width)) if isinstance(segmentation, list) else segmentation


def mask_of(segmentation: list | dict, size: tuple[int, int]) -> np.ndarray:
    """The pixels [H, W] of a segmentation, uint8."""
    from pycocotools.mask import decode

    return decode(rle_of(segmentation, size))


def is_area(area: Any, size: tuple[int, int]) -> bool:
    """Whether an object on an image of a size can have so many pixels."""
    return isinstance(area, (int, float)) and 0 < area <= size[0] * size[1]  # and so no NaN


def measure(annotation: Annotation, size: tuple[int, int]) -> str:
    """Give an annotation the box and area of its segmentation, else of its keypoints, where the file has no valid ones.

    Returns:
        What was wrong with the box that it had, or ''.
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
    """Width and height of an image as its annotations have them; None where they say nothing: nothing, or 0.

    Args:
        width, height: Numbers, or the text of some.
        fields: What they are called, for the error.

    Raises:
        DatasetError: They are something else.
    """
    sides = [as_integer(value or 0, field) for value, field in zip((width, height), fields)]
    for side, field in zip(sides, fields):
        if side < 0:
            raise DatasetError(f'{field} is {side}, expected pixels')
    return (sides[0], sides[1]) if min(sides) > 0 else None


def box_of_keypoints(keypoints: Sequence[float], size: tuple[int, int]) -> list[float] | None:
    """The box around labelled keypoints (x, y, visibility ...) with a margin, inside the image; None without any."""
    points = np.asarray(keypoints, dtype=float).reshape(-1, 3)
    points = points[points[:, 2] > 0, :2]
    if len(points) == 0:
        return None
    low, high = points.min(0), points.max(0)
    margin = max(_MARGIN * float((high - low).max()), _LEAST * max(size))
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, size)
    return [float(value) for value in (*low, *(high - low))]


def rotate(annotation: Annotation, orientation: int, size: tuple[int, int]) -> None:
    """Move an object from the frame of the sensor, of a size, to where EXIF's orientation 5 to 8 puts the image."""
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
    """Labels in the frame of the sensor follow their image, which is loaded as EXIF turns it.

    Labels of another size are not those of the image: it is left out.

    Args:
        dataset: Takes down what is wrong.
        image: With the labels of one file.
        written: Width and height of the image as that file has them, if it does.
        file: The file.
    """
    if written is None or written == image.size or image.problem:
        return
    width, height = written
    size, turn = oriented_size(image.path)
    if turn in (5, 6, 7, 8) and (height, width) == size:
        for annotation in image.annotations or ():
            rotate(annotation, turn, (width, height))
        dataset.warn(image.path, f'EXIF turns it (orientation {turn}), {file.name} has its labels unturned: turned')
    else:
        image.problem = f'is {size[0]} x {size[1]}, but {file.name} says {width} x {height}'


def read_class_ids(
    path: Path, segments: dict[int, int] | None = None, size: tuple[int, int] | None = None
) -> np.ndarray:
    """The values of a segmentation map [H, W], or [H, W, 3] of a coloured one; of a panoptic map the classes.

    Raises:
        InputError: The file is missing, no image, or not of ``size``, that of its image.
    """
    from icconv_mm.annotations.seg_maps import read_seg_map

    labels = read_seg_map(path, size)
    if segments is None:
        return labels[..., :3] if labels.ndim == 3 and labels.shape[2] == 4 else labels
    if labels.ndim != 3 or labels.shape[2] < 3:
        raise InputError(f'{path}: has one channel, expected the three of a panoptic map')
    ids = labels[..., 0].astype(np.int32) + 256 * labels[..., 1].astype(np.int32) + 65536 * labels[..., 2]
    known = np.array(sorted(segments), dtype=ids.dtype)
    if len(known) == 0:
        return np.zeros_like(ids)
    location = np.searchsorted(known, ids).clip(max=len(known) - 1)
    classes = np.array([segments[number] for number in known.tolist()], dtype=ids.dtype)
    return np.where(known[location] == ids, classes[location], 0)
