"""One batch of images, and the labels of every task padded with it."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import ImgDataPreprocessor
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor
from torch.nn.functional import pad

from icconv_mm.registry import MODELS
from icconv_mm.tasks.libraries import library_of
from icconv_mm.tasks.multitask.sample import MultiTaskSample


@MODELS.register_module()
class MultiTaskDataPreprocessor(ImgDataPreprocessor):
    """Normalises and stacks images as mmdet does, once for all tasks.

    Each sample learns where its image lies in the batch, in the words of its library; label maps are padded to the
    batch in training.

    Args:
        mean, std, pad_size_divisor, pad_value, bgr_to_rgb, rgb_to_bgr, non_blocking: The arguments of mmengine's
            ``ImgDataPreprocessor``.
        pad_mask: Whether masks of instances are padded as well, which mmdet's Mask2Former and its kin need.
        seg_pad_val: Label of padding in label maps.
    """

    def __init__(self, *args, pad_mask: bool = False, seg_pad_val: int = 255, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.pad_mask = pad_mask
        self.seg_pad_val = seg_pad_val

    def forward(self, data: dict, training: bool = False) -> dict:
        """``inputs`` [N, 3, H, W], float32, and ``data_samples``, of ``inputs`` that may differ in size."""
        sizes = [tuple(image.shape[-2:]) for image in data['inputs']]
        data = super().forward(data, training)
        shape = tuple(data['inputs'].shape[-2:])
        for size, sample in zip(sizes, data.get('data_samples') or ()):
            for own in _tasks_of(sample):
                own.set_metainfo(self._place(own, size, shape))
                _boxes_to_tensors(own)
                if training:
                    self._pad_labels(own, shape)
        return data

    def _place(self, sample: BaseDataElement, size: tuple[int, int], shape: tuple[int, int]) -> dict[str, Any]:
        """Where an image of ``size`` (height, width) lies in a batch of ``shape``."""
        divisor = self.pad_size_divisor
        padded = tuple(-(-side // divisor) * divisor for side in size)
        place = dict(batch_input_shape=shape, pad_shape=padded)
        library = library_of(type(sample))
        if library == 'mmseg':  # its heads resize logits to pad_shape, its networks cut padding_size off
            place['pad_shape'] = shape
            place['padding_size'] = place['img_padding_size'] = [0, shape[1] - size[1], 0, shape[0] - size[0]]
        if library == 'mmpose':
            place.update(_region(size, shape, sample.metainfo.get('ori_shape', size)))
        return place

    def _pad_labels(self, sample: BaseDataElement, shape: tuple[int, int]) -> None:
        if 'gt_sem_seg' in sample:
            labels = sample.gt_sem_seg.data
            beyond = (0, shape[1] - labels.shape[-1], 0, shape[0] - labels.shape[-2])
            sample.gt_sem_seg = PixelData(data=pad(labels, beyond, value=self.seg_pad_val))
        if self.pad_mask and 'masks' in sample.get('gt_instances', ()):
            sample.gt_instances.masks = sample.gt_instances.masks.pad(shape)


def _tasks_of(sample: MultiTaskSample) -> Sequence[BaseDataElement]:
    return [value for value in sample.values() if isinstance(value, BaseDataElement)]


def _region(size: Sequence[int], shape: Sequence[int], ori_shape: Sequence[int]) -> dict[str, Any]:
    """What mmpose maps keypoints back by: the part of the original image that the batch shows, padding included.

    A keypoint is the index of a pixel: pixel x of the network lies at (x + 0.5) / scale - 0.5 in the original.
    """
    sides = torch.tensor([shape[1], shape[0]], dtype=torch.float64)
    scale = torch.tensor([size[1] / ori_shape[1], size[0] / ori_shape[0]], dtype=torch.float64)
    extent = sides / scale
    center = extent / 2 + (0.5 / scale - 0.5)
    values = dict(input_size=(shape[1], shape[0]), input_center=center.numpy(), input_scale=extent.numpy())
    return {key: value if key == 'input_size' else value.astype('float32') for key, value in values.items()}


def _boxes_to_tensors(sample: BaseDataElement) -> None:
    """mmdet's boxes of the pipeline as plain tensors [N, 4], which its heads expect."""
    for instances in sample.values():
        if isinstance(instances, InstanceData) and not isinstance(instances.get('bboxes'), Tensor | None):
            boxes = instances.bboxes
            instances.bboxes = getattr(boxes, 'tensor', boxes)
