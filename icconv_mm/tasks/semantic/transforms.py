"""What the pipelines of mmseg lack."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from icconv_mm.annotations.images_on_disk import IMAGE_FORMATS
from icconv_mm.annotations.loading import ImageFileError, unrotated_labels_hint
from icconv_mm.annotations.seg_maps import IGNORED, labels_defect, labels_in, read_seg_map, seg_map_defect
from icconv_mm.errors import InputError
from icconv_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomBlur(BaseTransform):
    """Blurs every other image with a Gaussian kernel, as PyConvSegNet was trained (and PSPNet before it).

    Args:
        prob: Share of the images that are blurred.
        kernel_size: Pixels of the kernel, odd. OpenCV's weights for 5 are 1, 4, 6, 4 and 1 sixteenths.

    Raises:
        InputError: If the share is not from 0 to 1, or the size is even or not above 0.
    """

    def __init__(self, prob: float = 0.5, kernel_size: int = 5):
        if not 0 <= prob <= 1:
            raise InputError(f'RandomBlur: prob must be from 0 to 1, got {prob}')
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f'RandomBlur: kernel_size must be odd and above 0, got {kernel_size}')
        self.prob, self.kernel_size = prob, kernel_size

    def transform(self, results: dict) -> dict:
        """The sample with ``img`` [H, W, 3] blurred, or as it is."""
        if np.random.rand() < self.prob:
            results['img'] = cv2.GaussianBlur(results['img'], (self.kernel_size,) * 2, 0)
        return results


@TRANSFORMS.register_module()
class LoadSegMap(LoadAnnotations):
    """mmseg's ``LoadAnnotations``, with an error that names a segmentation map that cannot be right.

    mmseg keeps the last eight bits of a pixel, whatever the file has, and compares no sizes. The tools of this package
    put this transform in the place of mmseg's, with the classes of the dataset and what the heads ignore.

    Args:
        num_classes: Labels, as training sees them, are from 0 to one below it; None if it is not known.
        ignored: Other labels that may occur.
        kwargs: Arguments of mmseg's transform.

    Raises:
        ImageFileError: The map has several channels, another size than its image, or other labels.
    """

    def __init__(self, num_classes: int | None = None, ignored: Sequence[int] = (IGNORED,), **kwargs) -> None:
        super().__init__(**kwargs)
        self.num_classes, self.ignored = num_classes, tuple(ignored)

    def _load_seg_map(self, results: dict) -> None:
        path, image = results['seg_map_path'], results.get('img_path')
        size, reduced = results.get('ori_shape'), results.get('reduce_zero_label', False)
        known = self.num_classes or 1 << 8
        defect, hint = None if '://' in path else self._wide_defect(path, known, reduced), ''
        if defect is None:
            super()._load_seg_map(results)
            labels = results['gt_seg_map']
            defect = seg_map_defect(labels, known, ignored=self.ignored, size=size, reduced=reduced)
            hint = unrotated_labels_hint(image, labels.shape[:2], size) if defect else ''
        if defect is not None:
            raise ImageFileError(f'{path}: {defect}{hint}')

    def _wide_defect(self, path: str, known: int, reduced: bool) -> str | None:
        """Labels that do not fit into eight bits."""
        try:
            with Image.open(path, formats=IMAGE_FORMATS) as image:
                is_wide = image.mode[0] in 'IF'
        except OSError:  # of a kind that Pillow does not know: mmseg's decoder says the rest
            return None
        if not is_wide:
            return None
        wide = [label for label in labels_in(read_seg_map(path)) if not 0 <= label < 1 << 8]
        return labels_defect(wide, known, self.ignored, reduced)
