"""What prepares the samples of bottom-up pose: transforms of mmpose's pipelines, and the batch."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmpose.datasets.transforms import BottomupRandomAffine, PackPoseInputs
from mmpose.datasets.transforms.formatting import image_to_tensor
from mmpose.models.data_preprocessors import PoseDataPreprocessor
from torch import Tensor

from icconv_mm.errors import InputError, naming
from icconv_mm.registry import MODELS, TRANSFORMS
from icconv_mm.tasks.pose.multiscale import check_scales, check_source, image_pyramid
from icconv_mm_runtime.images import warp_matrix


@TRANSFORMS.register_module()
class BottomupAffine(BottomupRandomAffine):
    """The random affine transform of mmpose 0.x (``BottomUpRandomAffine``): uniform, translation relative to the scale.

    mmpose 1.x draws from a truncated normal distribution and translates relative to the unscaled image.

    Args:
        input_size: ``(width, height)`` of the result.
        **kwargs: Arguments of ``BottomupRandomAffine``: rotate_factor, scale_factor, shift_factor (relative to the
            scaled image; mmpose 0.x counts it in units of 1/200), scale_type ...

    Keypoints that leave the image stay in the annotations (``clip_border=False``): as in mmpose 0.x, targets decide by
    heatmap pixels what is inside, so a keypoint up to one heatmap pixel left of or above the border still counts.
    """

    def __init__(self, input_size: tuple[int, int], **kwargs):
        super().__init__(input_size=tuple(input_size), distribution='uniform', **{'clip_border': False, **kwargs})

    def _get_transform_params(self) -> tuple:
        offset, scale, rotation, shear = super()._get_transform_params()
        return offset * scale, scale, rotation, shear

    def transform(self, results: dict) -> dict:
        """Cut ``img``, ``keypoints`` and ``bbox`` out; adds ``warp_mat`` and updates ``img_shape``.

        Raises:
            InputError: For an image with a side of more than 32766 pixels, or one that was flipped before.
        """
        with naming(str(results.get('img_path'))):
            check_source(results['img'].shape[1::-1])
            if results.get('flip_direction') is not None:
                raise InputError('RandomFlip stands before BottomupAffine; put it behind, or the mask will not follow')
        results['flip_direction'] = None  # mmpose 1.2 has no default for what a codec asks for
        # cv2.transform refuses arrays without rows, which an image without people has.
        empty = {key: results.pop(key) for key in ('keypoints', 'bbox') if key in results and len(results[key]) == 0}
        results = super().transform(results)
        results.update(empty)
        # RandomFlip would read ``input_size`` as (height, width).
        del results['input_size']
        results['img_shape'] = results['img'].shape[:2]
        return results


@TRANSFORMS.register_module()
class MultiScaleResize(BaseTransform):
    """Resize an image to every test scale.

    Required keys: ``img``. Modified: ``img`` becomes a list of images, largest first; ``img_shape``. Added:
    ``test_scales`` (in the order of the images), ``input_size``, ``input_center`` and ``input_scale`` (the size at
    scale 1, and the region of the image that it shows, by which predictions are mapped back to the image).

    Args:
        input_size: ``(width, height)`` that the network was trained on.
        scales: Test scales; [2, 1, 0.5] is the published multi-scale test.
        size_divisor: Number to whose multiples the sides of the smallest scale are rounded up.
        stride: Largest stride of the network.

    Raises:
        InputError: If ``scales`` is empty, has a value that is not positive, or one twice; for an image so long and
            thin that a resized side would exceed 32766 pixels, or with a side of more than that.
    """

    def __init__(
        self, input_size: tuple[int, int], scales: Sequence[float] = (1,), size_divisor: int = 64, stride: int = 32
    ):
        self.input_size, self.scales = tuple(input_size), check_scales(scales)
        self.size_divisor, self.stride = size_divisor, stride

    def transform(self, results: dict) -> dict:
        """Resize ``img`` of an image [H, W, 3] to every scale."""
        image = results['img']
        height, width = image.shape[:2]
        with naming(str(results.get('img_path'))):
            pyramid = image_pyramid((width, height), self.input_size, self.scales, self.size_divisor, self.stride)
        results['img'] = [
            cv2.warpAffine(image, warp_matrix(size, pyramid.center, pyramid.extent), size, flags=cv2.INTER_LINEAR)
            for size in pyramid.sizes
        ]
        results['img_shape'] = pyramid.base_size[::-1]
        results['test_scales'] = self.scales
        results['input_size'] = pyramid.base_size
        results['input_center'] = np.array(pyramid.center, dtype=np.float32)
        results['input_scale'] = np.array(pyramid.extent, dtype=np.float32)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(input_size={self.input_size}, scales={list(self.scales)})'


META_KEYS = (
    *('id', 'img_id', 'img_path', 'crowd_index', 'ori_shape', 'raw_ann_info', 'dataset_name', 'skeleton_links'),
    *('img_shape', 'input_size', 'input_center', 'input_scale', 'test_scales'),
    *('flip', 'flip_direction', 'flip_indices'),
)


@TRANSFORMS.register_module()
class PackMultiScaleInputs(PackPoseInputs):
    """``PackPoseInputs`` for one image or a list of images of different sizes.

    ``category_id`` stays out of the meta information: it is a list in bottom-up data, and ``CocoMetric`` would write it
    into every result.

    Args:
        meta_keys: Keys of the results that go into the meta information of the sample.
        **kwargs: Arguments of ``PackPoseInputs``.
    """

    def __init__(self, meta_keys: Sequence[str] = META_KEYS, **kwargs):
        super().__init__(meta_keys=tuple(meta_keys), **kwargs)

    def transform(self, results: dict) -> dict:
        """Pack ``inputs``, a tensor [3, H, W] or a list of them, and ``data_samples``."""
        images = results['img']
        if not isinstance(images, list):
            return super().transform(results)
        packed = super().transform({**results, 'img': images[0]})
        packed['inputs'] = [image_to_tensor(image) for image in images]
        return packed


@MODELS.register_module()
class MultiScaleDataPreprocessor(PoseDataPreprocessor):
    """``PoseDataPreprocessor`` that also takes images at several scales, as :class:`PackMultiScaleInputs` packs them.

    Training batches (images of one size) go the usual way. Images for testing are not padded to a common size, which
    would change their heatmaps; they come out as a tuple with one tuple of normalised [3, H, W] per image, largest
    scale first.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise ``data['inputs']``: collated images, or a list over scales of lists of images."""
        inputs = data['inputs']
        if isinstance(inputs, Tensor) or isinstance(inputs[0], Tensor):
            return super().forward(data, training)
        data = self.cast_data(data)
        # From scales of images to images of scales; tuples, as ``BasePoseEstimator.forward`` stacks what is in a list.
        images = tuple(tuple(map(self._normalize, levels)) for levels in zip(*data['inputs']))
        return {'inputs': images, 'data_samples': data['data_samples']}

    def _normalize(self, image: Tensor) -> Tensor:
        if self._channel_conversion:
            image = image.flip(0)
        image = image.float()
        return (image - self.mean) / self.std if self._enable_normalize else image
