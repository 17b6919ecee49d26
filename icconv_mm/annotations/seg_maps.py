"""Checks of segmentation maps, images whose pixels are the labels of classes, and of the files that have none."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from icconv_mm.annotations.images_on_disk import IMAGE_FORMATS
from icconv_mm.errors import InputError

IGNORED = 255  # the label that mmseg's datasets leave out


def read_seg_map(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """The numbers of an image file as they are stored, indices of a palette included: 16 bits stay 16 bits.

    Args:
        path: The file.
        size: Width and height of the image that it belongs to, with which it is compared before it is decoded.

    Returns:
        [H, W], or [H, W, channels] of an image that is no segmentation map.

    Raises:
        InputError: The file is missing or no image, or has another size.
    """
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            if size is not None and image.size != size:
                (own_width, own_height), (width, height) = image.size, size
                raise InputError(f'{path}: has {own_width} x {own_height} pixels, its image {width} x {height}')
            labels = np.asarray(image)
    except InputError:
        raise
    except Exception as error:  # whatever a decoder raises, the file is damaged
        raise InputError(f'{path}: no segmentation map can be read ({error})') from error
    return labels.astype(np.uint8) if labels.dtype == bool else labels


def labels_in(labels: np.ndarray) -> list[int]:
    """The labels that occur in a map of integers, in order."""
    if labels.dtype == np.uint8:  # of which there are most: some twenty times as fast as numpy
        return np.flatnonzero(cv2.calcHist([np.ascontiguousarray(labels)], [0], None, [256], [0, 256])).tolist()
    return np.unique(labels).tolist()


def seg_map_defect(
    labels: np.ndarray,
    num_classes: int,
    *,
    ignored: Collection[int] = (IGNORED,),
    size: Sequence[int] | None = None,
    reduced: bool = False,
) -> str | None:
    """What is wrong with a segmentation map; None if nothing is.

    Args:
        labels: The map as :func:`read_seg_map` returns it, or as a transform made it of that.
        num_classes: Labels are from 0 to one below it.
        ignored: Other labels that may occur.
        size: Height and width of the image that the map belongs to.
        reduced: Whether labels are one less than in the file, whose 0 is ignored (``reduce_zero_label``).
    """
    return _shape_defect(labels, size) or labels_defect(labels_in(labels), num_classes, ignored, reduced)


def _shape_defect(labels: np.ndarray, size: Sequence[int] | None) -> str | None:
    if labels.ndim != 2:
        channels = ' x '.join(map(str, labels.shape[2:]))
        return f'{channels} channels, expected one with the label of each pixel (colours are not labels)'
    if labels.dtype.kind not in 'ui':
        return f'pixels are {labels.dtype}, expected integer labels'
    if size is not None and labels.shape != tuple(size[:2]):
        (height, width), (own_height, own_width) = size[:2], labels.shape
        return f'the segmentation map has {own_width} x {own_height} pixels, but its image {width} x {height}'
    return None


def labels_defect(
    found: Collection[int], num_classes: int, ignored: Collection[int] = (IGNORED,), reduced: bool = False
) -> str | None:
    """:func:`seg_map_defect` of the labels that occur, which are those that training sees."""
    strange = [label for label in found if not 0 <= label < num_classes and label not in ignored]
    if not strange:
        return None
    named = ', '.join(str(label + (reduced and label < IGNORED)) for label in strange[:4])
    also = ' or '.join(map(str, sorted({*ignored, *([0] if reduced else [])})))
    classes = '1 class has' if num_classes == 1 else f'{num_classes} classes have'
    known = f'labels from {int(reduced)} to {num_classes - 1 + reduced}' if num_classes > 1 else f'label {int(reduced)}'
    return f'label {named}{", ..." * (len(strange) > 4)}, but the {classes} {known}' + (
        f', and {also} is ignored' if also else ''
    )


def learned(found: Collection[int], reduced: bool, label_map: Mapping[int, int] | None) -> set[int]:
    """What becomes of the labels of files in training.

    Args:
        found: Labels in the files.
        reduced: ``reduce_zero_label`` of mmseg's dataset.
        label_map: Its ``label_map``, for classes of its type that the config leaves out.
    """
    if reduced:
        found = {IGNORED if label == 0 else label - (label < IGNORED) for label in found}
    return {(label_map or {}).get(label, label) for label in found}


def nothing_to_learn(found: Collection[int], num_classes: int) -> str | None:
    """Why a network cannot learn from maps in which only these labels occur, if so: there must be two classes."""
    classes = sorted(label for label in found if 0 <= label < num_classes)
    if len(classes) > 1:
        return None
    what = f'only label {classes[0]}' if classes else 'none'
    others = sorted(set(found) - set(classes))
    ignored = f' beside {", ".join(map(str, others))}, which is ignored' if others else ''
    return (
        f'{what} of the {num_classes} classes occurs in any segmentation map{ignored}: there is nothing to tell apart'
    )


def suffixes_in(folder: str | Path, most: int = 3) -> str:
    """The suffixes of the files below a folder, most frequent first, in words: ``'.png' (12 files)``."""
    counts = Counter(path.suffix for path in Path(folder).rglob('*') if path.is_file())
    return ', '.join(f'{suffix!r} ({count} files)' for suffix, count in counts.most_common(most)) or 'no files'
