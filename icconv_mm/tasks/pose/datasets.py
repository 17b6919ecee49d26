"""Data of bottom-up pose: mmpose's datasets with checks of the annotations, transforms, and the data preprocessor."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmpose.datasets.datasets import CocoDataset, CrowdPoseDataset
from mmpose.datasets.transforms import BottomupRandomAffine, PackPoseInputs
from mmpose.datasets.transforms.formatting import image_to_tensor
from mmpose.models.data_preprocessors import PoseDataPreprocessor
from torch import Tensor

from icconv_mm.datasets.checks import check_once, location_of, pose_defect, warn_of_lost_people
from icconv_mm.datasets.keypoints import keypoint_metainfo, read_names
from icconv_mm.datasets.reading import no_garbage_search
from icconv_mm.datasets.segmentations import segmentation_defect
from icconv_mm.errors import InputError, naming
from icconv_mm.registry import DATASETS, MODELS, TRANSFORMS
from icconv_mm.tasks.pose.multiscale import check_scales, check_source, image_pyramid
from icconv_mm_runtime.warping import warp, warp_matrix


class _Kept(dict):
    """An annotation that deep copies copy shallowly: mmpose's, number by number, take half of the loading time."""

    def __deepcopy__(self, memo: dict) -> dict:
        return dict(self)


class BottomupMixin:
    """Additions to mmpose's COCO-style datasets.

    Their ``metainfo`` may be in the short form of :func:`keypoint_metainfo`. ``keypoints`` may name a JSON file of it.

    Args:
        keep_empty: Whether images without any annotation are used in training, as pure background.
        *args, **kwargs: Arguments of the dataset; ``data_mode`` is 'bottomup'.

    In training, ``raw_ann_info`` is None for each person, and ``segmentation`` is kept only for masked regions.

    Raises:
        InputError: If an annotation has another number of keypoints than the dataset, keypoints without a box, the id
            of another, or a segmentation that does not fit its image; it names file, image and annotation.
    """

    def __init__(self, *args, keep_empty: bool = False, data_mode: str = 'bottomup', **kwargs):
        self.keep_empty = keep_empty
        super().__init__(*args, data_mode=data_mode, **kwargs)

    @classmethod
    def _load_metainfo(cls, metainfo: Mapping[str, Any] | None = None) -> dict:
        return super()._load_metainfo(metainfo and keypoint_metainfo(read_names(metainfo)))

    def load_data_list(self) -> list[dict]:
        """Returns an entry for each image, as mmpose reads them."""
        with no_garbage_search():
            return super().load_data_list()

    def parse_data_info(self, raw_data_info: dict) -> dict | None:
        # A null segmentation crashes mmpose's joining of people if others have one.
        annotation = _Kept((key, value) for key, value in raw_data_info['raw_ann_info'].items() if value is not None)
        annotation.setdefault('segmentation', [])
        expected = self._metainfo['num_keypoints']  # the property would copy all of the metainfo
        count = len(annotation.get('keypoints', ()))
        if 'keypoints' in annotation and count != 3 * expected:
            raise InputError(
                f'{self.ann_file}: annotation {annotation.get("id")} of image {annotation.get("image_id")} has '
                f'{count} values in "keypoints", expected {3 * expected} (x, y, visibility of {expected} keypoints)'
            )
        image, problem = raw_data_info['raw_img_info'], pose_defect(annotation) if count else None
        info = None if problem else super().parse_data_info({**raw_data_info, 'raw_ann_info': annotation})
        segmentation = annotation['segmentation']
        if info and not self.test_mode:  # not used in training, and most of the memory
            info.update(raw_ann_info=None, segmentation=[])
        if info and segmentation and not self._is_valid_instance(info):  # except for regions, which it masks
            info['segmentation'] = segmentation
            problem = segmentation_defect(segmentation, image['height'], image['width'])
        if problem is not None:
            raise InputError(f'{location_of(annotation, image, self.ann_file)}: {problem}')
        return info

    def _get_bottomup_data_infos(self, instance_list: Sequence[dict], image_list: Sequence[dict]) -> list[dict]:
        check_once(self.coco.dataset, self.ann_file)  # people with a shared id have got another one's keypoints
        warn_of_lost_people(self.coco.dataset, self.ann_file)
        data_list = super()._get_bottomup_data_infos(instance_list, image_list)
        if self.keep_empty and not self.test_mode:
            annotated = {info['img_id'] for info in data_list}
            count = self.metainfo['num_keypoints']
            shapes = dict(bbox=(0, 4), bbox_score=0, keypoints=(0, count, 2), keypoints_visible=(0, count))
            for image in (image for image in image_list if image['img_id'] not in annotated):  # background
                nobody = {key: np.zeros(shape, dtype=np.float32) for key, shape in shapes.items()}
                paths = {key: image[key] for key in ('img_id', 'img_path')}
                data_list.append(dict(**paths, id=[], raw_ann_info=None, invalid_segs=[], **nobody))
        sizes = {image['img_id']: {side: image.get(side) for side in ('height', 'width')} for image in image_list}
        return [{**info, **sizes[info['img_id']]} for info in data_list]  # compared with the image when it is read


@DATASETS.register_module()
class BottomupCocoDataset(BottomupMixin, CocoDataset):
    """COCO keypoints, bottom-up: mmpose's ``CocoDataset`` with ``keep_empty=False``.

    ``keep_empty=True`` uses images without any annotation in training. An annotation with another number of keypoints
    than the dataset raises ``InputError``, which names file and annotation.
    """


@DATASETS.register_module()
class BottomupCrowdPoseDataset(BottomupMixin, CrowdPoseDataset):
    """CrowdPose keypoints, bottom-up: mmpose's ``CrowdPoseDataset``, as :class:`BottomupCocoDataset`."""


@TRANSFORMS.register_module()
class BottomupAffine(BottomupRandomAffine):
    """Random affine transform of mmpose 0.x (``BottomUpRandomAffine``): uniform, translation relative to the scale.

    mmpose 1.x draws from a truncated normal distribution and translates relative to the unscaled image.

    Args:
        input_size: ``(width, height)`` of the result.
        **kwargs: Arguments of ``BottomupRandomAffine``: rotate_factor, scale_factor, shift_factor (relative to the
            scaled image; mmpose 0.x counts it in units of 1/200), scale_type ...

    Keypoints that leave the image stay in the annotations (``clip_border=False``): as in mmpose 0.x, the targets decide
    by heatmap pixels what is inside, so a keypoint up to one heatmap pixel left of or above the border still counts.
    """

    def __init__(self, input_size: tuple[int, int], **kwargs):
        super().__init__(input_size=tuple(input_size), distribution='uniform', **{'clip_border': False, **kwargs})

    def _get_transform_params(self) -> tuple:
        offset, scale, rotation, shear = super()._get_transform_params()
        return offset * scale, scale, rotation, shear

    def transform(self, results: dict) -> dict:
        """Warps ``img``, ``keypoints`` and ``bbox``; adds ``warp_mat`` and updates ``img_shape``.

        Raises:
            InputError: If the image has a side of more than 32766 pixels, or was flipped before.
        """
        with naming(str(results.get('img_path'))):
            check_source(results['img'].shape[1::-1])
            if results.get('flip_direction') is not None:
                raise InputError('RandomFlip stands before BottomupAffine; put it behind, or the mask will not follow')
        results['flip_direction'] = None  # mmpose 1.2 has no default for this key of a codec
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
    """Resizes an image to every test scale.

    Required keys: ``img``. Modified: ``img`` becomes a list of images, largest first; ``img_shape``. Added:
    ``test_scales`` (in the order of the images), ``input_size``, ``input_center`` and ``input_scale`` (the size at
    scale 1, and the region of the image that it shows, by which predictions are mapped back to the image).

    Args:
        input_size: ``(width, height)`` that the network was trained on.
        scales: Test scales; [2, 1, 0.5] is the published multi-scale test.
        size_divisor: The sides of the smallest scale are rounded up to its multiples.
        stride: Largest stride of the network.

    Raises:
        InputError: If ``scales`` is empty, or has a value that is not positive or occurs twice; if the image is so long
            and thin that a resized side would exceed 32766 pixels, or has a side of more than that.
    """

    def __init__(
        self, input_size: tuple[int, int], scales: Sequence[float] = (1,), size_divisor: int = 64, stride: int = 32
    ):
        self.input_size, self.scales = tuple(input_size), check_scales(scales)
        self.size_divisor, self.stride = size_divisor, stride

    def transform(self, results: dict) -> dict:
        """Resizes ``img``, an image [H, W, 3], to every scale."""
        image = results['img']
        height, width = image.shape[:2]
        with naming(str(results.get('img_path'))):
            pyramid = image_pyramid((width, height), self.input_size, self.scales, self.size_divisor, self.stride)
        results['img'] = [
            warp(image, warp_matrix(size, pyramid.center, pyramid.extent), size) for size in pyramid.sizes
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

    ``category_id`` is not part of the meta information: it is a list in bottom-up data, and ``CocoMetric`` would write
    it into every result.

    Args:
        meta_keys: Keys of the results that are packed into the meta information of the sample.
        **kwargs: Arguments of ``PackPoseInputs``.
    """

    def __init__(self, meta_keys: Sequence[str] = META_KEYS, **kwargs):
        super().__init__(meta_keys=tuple(meta_keys), **kwargs)

    def transform(self, results: dict) -> dict:
        """Packs ``inputs``, a tensor [3, H, W] or a list of them, and ``data_samples``."""
        images = results['img']
        if not isinstance(images, list):
            return super().transform(results)
        packed = super().transform({**results, 'img': images[0]})
        packed['inputs'] = [image_to_tensor(image) for image in images]
        return packed


@MODELS.register_module()
class MultiScaleDataPreprocessor(PoseDataPreprocessor):
    """``PoseDataPreprocessor`` that also accepts images at several scales, as :class:`PackMultiScaleInputs` packs them.

    Training batches (images of one size) are processed as usual. Test images are not padded to a common size, which
    would change their heatmaps; the result is a tuple with one tuple of normalised [3, H, W] per image, largest scale
    first.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalises ``data['inputs']``: collated images, or a list over scales of lists of images."""
        inputs = data['inputs']
        if isinstance(inputs, Tensor) or isinstance(inputs[0], Tensor):
            return super().forward(data, training)
        data = self.cast_data(data)
        # From scales of images to images of scales; as tuples, since ``BasePoseEstimator.forward`` stacks lists.
        images = tuple(tuple(map(self._normalize, levels)) for levels in zip(*data['inputs']))
        return {'inputs': images, 'data_samples': data['data_samples']}

    def _normalize(self, image: Tensor) -> Tensor:
        if self._channel_conversion:
            image = image.flip(0)
        image = image.float()
        return (image - self.mean) / self.std if self._enable_normalize else image
