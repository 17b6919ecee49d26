"""Segmentation maps, images with a class for every pixel: reads and checks those that networks train on."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from icconv_mm.datasets.image_files import opened
from icconv_mm.errors import InputError

IGNORED = 255  # the label that mmseg's datasets ignore
LARGEST = 65535  # largest value of a segmentation map


def read_seg_map(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Returns the pixel values of an image file as stored, with palette indices: 16 bits stay 16 bits.

    Args:
        path: The file.
        size: Width and height of its image; compared before the file is decoded.

    Returns:
        Array [H, W], or [H, W, channels] if the file is no segmentation map.

    Raises:
        InputError: The file is missing or no image, or has another size.
    """
    try:
        with opened(Path(path)) as image:
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
    """Returns the labels that occur in a map of integers, sorted."""
    if labels.dtype == np.uint8:  # the most frequent type: some twenty times as fast as numpy
        return np.flatnonzero(cv2.calcHist([np.ascontiguousarray(labels)], [0], None, [256], [0, 256])).tolist()
    return np.unique(labels).tolist()


def seg_map_defect(
    labels: np.ndarray,
    num_classes: int,
    *,
    ignored: Collection[int] = (IGNORED,),
    shape: Sequence[int] | None = None,
    reduced: bool = False,
) -> str | None:
    """Returns the defect of a segmentation map; None if it has none.

    Args:
        labels: The map as :func:`read_seg_map` returns it, or after a transform.
        num_classes: Number of classes; valid labels are 0 to ``num_classes - 1``.
        ignored: Other labels that may occur.
        shape: Height and width of the map's image.
        reduced: Whether labels are one less than in the file, whose 0 is ignored (``reduce_zero_label``).
    """
    return _shape_defect(labels, shape) or labels_defect(labels_in(labels), num_classes, ignored, reduced)


def _shape_defect(labels: np.ndarray, shape: Sequence[int] | None) -> str | None:
    if labels.ndim != 2:
        channels = ' x '.join(map(str, labels.shape[2:]))
        return f'{channels} channels, expected one with the label of each pixel (colours are not labels)'
    if labels.dtype.kind not in 'ui':
        return f'pixels are {labels.dtype}, expected integer labels'
    if shape is not None and labels.shape != tuple(shape[:2]):
        (height, width), (own_height, own_width) = shape[:2], labels.shape
        return f'the segmentation map has {own_width} x {own_height} pixels, but its image {width} x {height}'
    return None


def labels_defect(
    labels: Collection[int], num_classes: int, ignored: Collection[int] = (IGNORED,), reduced: bool = False
) -> str | None:
    """Returns the defect of a set of labels as training sees them, as :func:`seg_map_defect`."""
    strange = [label for label in labels if not 0 <= label < num_classes and label not in ignored]
    if not strange:
        return None
    named = ', '.join(str(label + (reduced and label < IGNORED)) for label in strange[:4])
    also = ' or '.join(map(str, sorted({*ignored, *([0] if reduced else [])})))
    classes = '1 class has' if num_classes == 1 else f'{num_classes} classes have'
    allowed = (
        f'labels from {int(reduced)} to {num_classes - 1 + reduced}' if num_classes > 1 else f'label {int(reduced)}'
    )
    return f'label {named}{", ..." * (len(strange) > 4)}, but the {classes} {allowed}' + (
        f', and {also} is ignored' if also else ''
    )


def learned(labels: Collection[int], reduced: bool, label_map: Mapping[int, int] | None) -> set[int]:
    """Returns the labels that training sees for the labels of the files.

    Args:
        labels: Labels in the files.
        reduced: ``reduce_zero_label`` of mmseg's dataset.
        label_map: Its ``label_map``, for classes of its type that the config omits.
    """
    if reduced:
        labels = {IGNORED if label == 0 else label - (label < IGNORED) for label in labels}
    return {(label_map or {}).get(label, label) for label in labels}


def nothing_to_learn(labels: Collection[int], num_classes: int, ignored: Collection[int] = ()) -> str | None:
    """Returns why a network cannot train on maps with only these labels, or None: it needs at least two classes."""
    classes = sorted(label for label in labels if 0 <= label < num_classes and label not in ignored)
    if len(classes) > 1:
        return None
    what = f'only label {classes[0]}' if classes else 'none'
    others = sorted(set(labels) - set(classes))
    beside = f' beside {", ".join(map(str, others))}, which is ignored' if others else ''
    return f'{what} of the {num_classes} classes occurs in any segmentation map{beside}: there is nothing to tell apart'


def suffixes_in(folder: str | Path, most: int = 3) -> str:
    """Returns the suffixes of the files below a folder, most frequent first, as text: ``'.png' (12 files)``."""
    counts = Counter(path.suffix for path in Path(folder).rglob('*') if path.is_file())
    return ', '.join(f'{suffix!r} ({count} files)' for suffix, count in counts.most_common(most)) or 'no files'
