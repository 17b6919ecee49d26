"""Finds images, and loads them with errors that name the bad file."""

import glob
import logging
import os
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile as _LoadImageFromFile
from mmengine import fileio
from mmengine.logging import print_log

from icconv_mm.datasets.image_files import opened
from icconv_mm.errors import MissingFileError, UserError
from icconv_mm.registry import TRANSFORMS
from icconv_mm_runtime.decoding import ImageDefect, decode_image, lacks_end
from icconv_mm_runtime.images import IMAGE_SUFFIXES, images_among

# How a file of each format begins and ends. Some cameras append their own data to a JPEG: a file without the end marker
# in its last bytes is decoded in full before it is reported as truncated.
_FORMATS = ((b'\xff\xd8', b'\xff\xd9'), (b'\x89PNG', b'IEND'))
_TAIL = 4096
_ORIENTATION = 0x0112  # tag of EXIF
_FLAGS = {
    'color': cv2.IMREAD_COLOR,
    'color_ignore_orientation': cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
}


class ImageFileError(UserError, RuntimeError):
    """An image is missing, empty, truncated or of unknown format."""


@TRANSFORMS.register_module()
class LoadImageFromFile(_LoadImageFromFile):
    """mmcv's ``LoadImageFromFile``, with an error that names the bad file.

    OpenCV up to 4.8, at least, decodes a truncated JPEG and fills the rest with grey, OpenCV 4.11 loads none; here it
    is an error with every version, unless next to nothing is missing. The segmentation map of an image (mmseg) is
    checked as well. The tools of this package use this transform in place of mmcv's ``LoadImageFromFile`` and mmpose's
    ``LoadImage``.

    Args:
        skip_bad: Skip bad files with a warning: as for any transform that returns None, mmengine's datasets load
            another random image instead. For training only.
        kwargs: Arguments of mmcv's transform.

    Raises:
        ImageFileError: ``skip_bad`` is False and a file is missing, empty, truncated or no image, its size differs
            from its annotations', or its boxes or keypoints are not finite.
    """

    def __init__(self, skip_bad: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        self.skip_bad = skip_bad

    def transform(self, results: dict) -> dict | None:
        """Loads ``results['img_path']``; an image already in ``results['img']`` is used as it is (mmpose)."""
        if results.get('img') is not None:
            image = results['img']
            results['img'] = image.astype(np.float32) if self.to_float32 else image
            results.setdefault('img_path', None)
            results['img_shape'] = results['ori_shape'] = image.shape[:2]
            return results
        path, labels = results['img_path'], results.get('seg_map_path')
        defect = image_defect(path)
        if defect is None and labels is not None and (defect := image_defect(labels)) is not None:
            path = labels
        if defect is None:
            defect = annotation_defect(results)
        if defect is None:
            try:
                results = self._loaded(results)
            except (AssertionError, OSError, ValueError, cv2.error) as error:
                defect = f'cannot be decoded ({error})'
            else:
                if (defect := size_defect(results)) is None:
                    return results
        if self.skip_bad:
            print_log(f'{path}: {defect}; skipped', logger='current', level=logging.WARNING)
            return None
        raise ImageFileError(f'{path}: {defect}')

    def _loaded(self, results: dict) -> dict:
        """Decodes as predictions and exported files do; other backends and colour types than the usual are mmcv's."""
        flags = _FLAGS.get(self.color_type) if self.imdecode_backend == 'cv2' else None
        if flags is None or self.file_client_args is not None:
            return super().transform(results)
        image = decode_image(fileio.get(results['img_path'], backend_args=self.backend_args), flags)
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results


def annotation_defect(results: Mapping[str, Any]) -> str | None:
    """Returns the defect of an image's boxes and keypoints (one NaN in a loss would destroy all weights), or None.

    Args:
        results: The image's results of a dataset of mmdet (``instances``) or mmpose (``bbox``, ``keypoints``).
    """
    values = {key: results[key] for key in ('bbox', 'keypoints') if results.get(key) is not None}
    for instance in results.get('instances') or ():
        if not all(map(isfinite, instance.get('bbox') or ())):
            return f'a box of its annotations is not finite: {list(instance["bbox"])}'
    for key, value in values.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == 'f' and not np.isfinite(value).all():
            return f'{key} of its annotations are not finite'
    return None


def size_defect(results: Mapping[str, Any]) -> str | None:
    """Returns how the size of a loaded image differs from that in its annotations (of one task or several), or None."""
    for labels in (results, *(results.get('labels') or {}).values()):
        expected = labels.get('height'), labels.get('width')
        shape = results['ori_shape']
        if None not in expected and tuple(shape) != expected:
            (height, width), (said_height, said_width) = shape, expected
            return (
                f'the image has {width} x {height} pixels, but its annotations say {said_width} x {said_height}'
                f'{unrotated_labels_hint(results["img_path"], expected, shape)}'
            )
    return None


def unrotated_labels_hint(path: str | None, labels: Sequence[int], image: Sequence[int] | None) -> str:
    """Returns advice if the annotations have the image's height and width before its EXIF rotation; else ''."""
    if path is None or image is None or '://' in path or tuple(labels) != tuple(image[1::-1]):
        return ''
    try:
        with opened(Path(path)) as file:
            orientation = file.getexif().get(_ORIENTATION)
    except (OSError, ImageDefect):  # a format that only OpenCV reads
        return ''
    if orientation not in (5, 6, 7, 8):
        return ''
    return (
        f': EXIF rotates the image (orientation {orientation}), but not its annotations; if those of all images are '
        "unrotated, set color_type='color_ignore_orientation' of LoadImageFromFile"
    )


def image_defect(path: str | os.PathLike) -> str | None:
    """Returns the defect that the first and last bytes of an image file show; None if it has none.

    A JPEG that lacks its end, and less than a fiftieth of its rows, has none.

    Files of a storage backend (``s3://``) are not checked.
    """
    if '://' in str(path):
        return None
    path = Path(path)
    if not path.is_file():
        return 'no such file'
    if not (ends := ends_of(path)):
        return 'empty file'
    if not any(ends.startswith(start) and end not in ends for start, end in _FORMATS):
        return None
    try:
        if lacks_end(ends):
            decode_image(path.read_bytes())  # it may lack little
        else:
            with opened(path) as image:
                image.load()
    except (OSError, SyntaxError, ValueError) as error:
        return f'truncated or corrupt ({error})'
    return None


def ends_of(path: Path) -> bytes:
    """Returns the first bytes and the last ones of a file, by which :func:`lacks_end` tells a truncated JPEG."""
    with open(path, 'rb') as file:
        start = file.read(8)
        file.seek(max(len(start), file.seek(0, os.SEEK_END) - _TAIL))
        return start + file.read()


def find_images(inputs: str | Path, *, recursive: bool = False) -> list[Path]:
    """Returns the image files of a path or a glob pattern, sorted by name.

    Args:
        inputs: A file, a folder, or a glob pattern.
        recursive: Whether subfolders of a folder are searched as well.

    Raises:
        MissingFileError: There is no image.
    """
    path = Path(inputs)
    if path.is_file():
        return [path]
    if path.is_dir():
        candidates = path.rglob('*') if recursive else path.iterdir()
    else:
        candidates = map(Path, glob.glob(str(inputs), recursive=True))
    paths = images_among(candidates)
    if not paths:
        if not path.is_dir() and not glob.has_magic(str(inputs)):
            raise MissingFileError(f'no such file or folder: {inputs}')
        kind = 'in the folder' if path.is_dir() else 'matches'
        below = path.is_dir() and any(images_among([path]) for path in path.rglob('*'))
        more = f"; folders in it have some: '{path}/**/*'" if below else ''
        raise MissingFileError(f'no image ({", ".join(IMAGE_SUFFIXES)}) {kind} {inputs}{more}')
    return paths
