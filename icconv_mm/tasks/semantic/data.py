"""Additions to mmseg for training on segmentation maps: a dataset from a list, transforms, a loss, a visualiser."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmengine.fileio import list_from_file
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.visualization import SegLocalVisualizer
from torch import Tensor, nn

from icconv_mm.datasets.image_files import opened
from icconv_mm.datasets.loading import ImageFileError, unrotated_labels_hint
from icconv_mm.datasets.seg_maps import IGNORED, labels_defect, labels_in, read_seg_map, seg_map_defect
from icconv_mm.errors import InputError, naming
from icconv_mm.registry import DATASETS, MODELS, TRANSFORMS, VISUALIZERS


@DATASETS.register_module()
class ListedSegDataset(BaseSegDataset):
    """mmseg's dataset of the images and segmentation maps that a JSON file pairs, in any folders.

    Args:
        ann_file: A file with ``images``, as ``tools/prepare_data.py`` writes it. Each has ``id``, ``file_name`` (below
            ``data_prefix['img_path']``) and a segmentation map: ``seg_map_file_name``, relative to the same folder, or
            ``seg_map``, relative to the folder of ``ann_file``.
        kwargs: Arguments of ``BaseSegDataset``.

    Raises:
        InputError: The file is no such list.
    """

    def load_data_list(self) -> list[dict]:
        """Returns one entry for each image."""
        with naming(self.ann_file, OSError, ValueError, KeyError, TypeError), open(self.ann_file, 'rb') as file:
            images = json.load(file)['images']
            if not images:
                raise InputError('no images in the list')
            folder = self.data_prefix.get('img_path') or ''
            maps = self.data_prefix.get('seg_map_path') or os.path.dirname(self.ann_file)
            return [
                dict(
                    img_path=os.path.join(folder, image['file_name']),
                    seg_map_path=(
                        os.path.join(folder, image['seg_map_file_name'])
                        if 'seg_map_file_name' in image
                        else os.path.join(maps, image['seg_map'])
                    ),
                    img_id=image['id'],
                    label_map=self.label_map,
                    reduce_zero_label=self.reduce_zero_label,
                    seg_fields=[],
                )
                for image in images
            ]


@MODELS.register_module()
class WeightedCrossEntropyLoss(nn.Module):
    """Cross entropy with a weight for each class, averaged over the labelled pixels.

    mmseg's ``CrossEntropyLoss`` with ``class_weight`` raises an IndexError if a pixel is ignored.

    Args:
        class_weight: A weight for each class.
        loss_weight: Factor of the loss.
        loss_name: Its name in the log; the training loss sums those whose names begin with ``loss_``.
    """

    def __init__(self, class_weight: Sequence[float], loss_weight: float = 1.0, loss_name: str = 'loss_ce') -> None:
        super().__init__()
        self.class_weight, self.loss_weight, self.loss_name = list(class_weight), loss_weight, loss_name

    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, ignore_index: int = 255) -> Tensor:
        """Computes the loss of logits ``[N, C, H, W]`` and labels ``[N, H, W]``; ``weight``: [N, H, W], per pixel."""
        classes = logits.new_tensor(self.class_weight)
        losses = F.cross_entropy(logits, labels, classes, ignore_index=ignore_index, reduction='none')
        labelled = labels != ignore_index
        total = (classes[labels.where(labelled, 0)] * labelled).sum()
        losses = losses if weight is None else losses * weight
        return self.loss_weight * losses.sum() / total.clamp(min=1e-6)


@VISUALIZERS.register_module()
class SegVisualizer(SegLocalVisualizer):
    """mmseg's visualiser, which keeps its own classes.

    ``MMSegInferencer`` requests those of Cityscapes unless its caller names others, despite config and checkpoint.

    Args:
        name: Name of the visualiser in mmengine.
        classes: Class names, or a file with one name per line.
        palette: Colours (R, G, B) of the classes.
        kwargs: Arguments of ``SegLocalVisualizer``.
    """

    def __init__(
        self, name: str = 'visualizer', *args, classes: Sequence[str] | str, palette: Sequence[Sequence[int]], **kwargs
    ):
        super().__init__(name, *args, **kwargs)
        self._own = list_from_file(classes) if isinstance(classes, str) else list(classes), list(palette)
        self.set_dataset_meta()

    def set_dataset_meta(
        self,
        classes: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        dataset_name: str | None = None,
    ) -> None:
        """Sets the metainfo as mmseg's method; without arguments, that of the visualiser's own classes."""
        if hasattr(self, '_own') and not (classes or palette or dataset_name):
            classes, palette = self._own
        super().set_dataset_meta(classes, palette, dataset_name)


@TRANSFORMS.register_module()
class RandomBlur(BaseTransform):
    """Blurs half of the images, by default, with a Gaussian kernel, as PyConvSegNet was trained (and PSPNet before it).

    Args:
        prob: Share of the images that are blurred.
        kernel_size: Side of the kernel in pixels, odd. OpenCV's weights for 5 are 1, 4, 6, 4 and 1 sixteenths.

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
        """Returns the sample with ``img`` [H, W, 3] blurred, or as it is."""
        if np.random.rand() < self.prob:
            results['img'] = cv2.GaussianBlur(results['img'], (self.kernel_size,) * 2, 0)
        return results


@TRANSFORMS.register_module()
class LoadSegMap(LoadAnnotations):
    """mmseg's ``LoadAnnotations``, with an error that names an invalid segmentation map.

    mmseg keeps the last eight bits of a pixel, whatever the file has, and compares no sizes. The tools of this package
    use this transform in place of mmseg's, with the classes of the dataset and the labels that the heads ignore.

    Args:
        num_classes: Number of classes; labels, as training sees them, are 0 to ``num_classes - 1``. None if unknown.
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
        shape, reduced = results.get('ori_shape'), results.get('reduce_zero_label', False)
        limit = self.num_classes or 1 << 8
        defect, hint = None if '://' in path else self._wide_defect(path, limit, reduced), ''
        if defect is None:
            super()._load_seg_map(results)
            labels = results['gt_seg_map']
            defect = seg_map_defect(labels, limit, ignored=self.ignored, shape=shape, reduced=reduced)
            hint = unrotated_labels_hint(image, labels.shape[:2], shape) if defect else ''
        if defect is not None:
            raise ImageFileError(f'{path}: {defect}{hint}')

    def _wide_defect(self, path: str, limit: int, reduced: bool) -> str | None:
        """Returns the defect of labels that do not fit into eight bits; None if there is none."""
        try:
            with opened(Path(path)) as image:
                is_wide = image.mode[0] in 'IF'
        except OSError:  # a format that Pillow does not know: mmseg's decoder reports it
            return None
        if not is_wide:
            return None
        wide = [label for label in labels_in(read_seg_map(path)) if not 0 <= label < 1 << 8]
        return labels_defect(wide, limit, self.ignored, reduced)
