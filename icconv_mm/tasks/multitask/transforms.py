"""Transforms for several tasks: load all annotations, augment the image once, pack one sample per task.

mmdet's transforms run in between: they move the image, boxes, masks and segmentation maps, and record the movement
in ``homography_matrix``, by which :class:`WarpPeople` moves keypoints.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform, Compose, to_tensor

from icconv_mm.errors import InputError
from icconv_mm.registry import TRANSFORMS
from icconv_mm.tasks.libraries import library_of, registered_class
from icconv_mm.tasks.multitask.model import LABELS_OF_FILE, MultiTaskSample

_STEP = 1 << 20  # more than any dataset's classes: label + step * number of the task, while boxes are in one list
_BOXES = ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks')
_IMAGE = ('img', 'img_path', 'img_shape', 'ori_shape')


@TRANSFORMS.register_module()
class LoadTaskAnnotations(BaseTransform):
    """Loads each task's annotations with a transform of its library.

    Boxes and masks of several tasks share one list, segmentation maps the channels of one map [H, W, n] ([H, W] for
    one), as mmdet's transforms expect; :class:`PackTaskInputs` separates them again. Tasks that are not listed, or
    whose annotations the image lacks, are unchanged.

    In a test pipeline it comes after the transforms that resize: metrics need annotations in pixels of the file.

    Args:
        tasks: A loading transform by the name of the task, such as
            ``boxes=dict(type='mmdet.LoadAnnotations', with_mask=True)``.

    Raises:
        InputError: If some tasks with boxes have masks and others have none.
    """

    def __init__(self, **tasks: Mapping[str, Any]) -> None:
        self.loaders = {name: _built(cfg, name) for name, cfg in tasks.items()}

    def transform(self, results: dict) -> dict:
        """Adds ``gt_bboxes``, ``gt_masks``, ``gt_seg_map`` and the like; other loaded values go into ``labels``."""
        image = {key: results[key] for key in _IMAGE if key in results}
        boxes, maps = {}, {}
        for name, load in self.loaders.items():
            if name not in results['labels']:
                continue
            loaded = load({**results['labels'][name], **image})
            if 'gt_bboxes' in loaded:
                boxes[name] = {key: loaded.pop(key) for key in _BOXES if key in loaded}
            if 'gt_seg_map' in loaded:
                maps[name] = loaded.pop('gt_seg_map')
            results['labels'][name] = {key: value for key, value in loaded.items() if key not in image}
        results['box_tasks'], results['map_tasks'] = list(boxes), list(maps)
        results[LABELS_OF_FILE] = 'scale_factor' in results  # the image was resized before
        if boxes:
            results.update(_joined_boxes(boxes))
        if maps:
            results['gt_seg_map'] = next(iter(maps.values())) if len(maps) == 1 else np.dstack(list(maps.values()))
        return results


def _built(cfg: Mapping[str, Any], name: str) -> BaseTransform:
    """Builds a transform, with its library as the default scope of nested types."""
    library = library_of(registered_class(TRANSFORMS, cfg.get('type'), f'transforms of {name}'))
    return TRANSFORMS.build({**cfg, '_scope_': library} if library else cfg)


def _joined_boxes(boxes: Mapping[str, dict]) -> dict:
    """Joins the boxes of all tasks in one list, with the task encoded in the label."""
    for number, part in enumerate(boxes.values()):
        part['gt_bboxes_labels'] = part['gt_bboxes_labels'] + _STEP * number
    first, *others = boxes.values()
    if not others:
        return first
    if len({frozenset(part) for part in boxes.values()}) > 1:
        kinds = ', '.join(f'{name} {"with" if "gt_masks" in part else "without"} masks' for name, part in boxes.items())
        raise InputError(f'icconv_mm.LoadTaskAnnotations: all tasks with boxes need masks, or none: {kinds}')
    parts = {key: [part[key] for part in boxes.values()] for key in first}
    return {
        key: np.concatenate(values) if isinstance(values[0], np.ndarray) else type(values[0]).cat(values)
        for key, values in parts.items()
    }


@TRANSFORMS.register_module()
class WarpPeople(BaseTransform):
    """Moves keypoints, as mmpose loads them, along with the image.

    It needs mmdet's ``homography_matrix``, which maps edges of pixels: pixel x has its edges at x and x + 1, and its
    centre, where a keypoint is, at x + 0.5. A flipped image swaps left and right keypoints by ``flip_indices``. It adds
    ``warp_mat`` (2 x 3, original pixels to those of the image), from which ``AECodec`` builds the mask of crowds.

    Raises:
        InputError: The homography is not affine.
    """

    def transform(self, results: dict) -> dict:
        """Changes ``keypoints`` [N, K, 2], ``keypoints_visible`` [N, K] and ``bbox`` [N, 4], if the image has them."""
        edges = np.asarray(results.get('homography_matrix', np.eye(3)), dtype=np.float64)
        if not np.allclose(edges[2], [0, 0, 1]):
            raise InputError(
                f'{results.get("img_path")}: keypoints follow only affine transforms, got {edges.tolist()}'
            )
        matrix = edges[:2].copy()
        matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5
        results['warp_mat'], results['flip_direction'] = matrix, None  # the flip is in the matrix
        if 'keypoints' not in results:
            return results
        results['keypoints'] = _warped(results['keypoints'], matrix)
        corners = _warped(results['bbox'].reshape(-1, 2, 2), edges[:2])
        results['bbox'] = np.concatenate([corners.min(1), corners.max(1)], axis=-1)
        if np.linalg.det(matrix[:, :2]) < 0:
            swapped = list(results['flip_indices'])
            results['keypoints'] = results['keypoints'][:, swapped]
            results['keypoints_visible'] = results['keypoints_visible'][:, swapped]
        return results


def _warped(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Transforms points [..., 2] by a 2 x 3 matrix."""
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


@TRANSFORMS.register_module()
class PackTaskInputs(BaseTransform):
    """Packs the image, and a sample for each task by transforms of its library.

    Args:
        tasks: Name of each task -> a list of transforms that ends with the packing one, such as
            ``boxes=[dict(type='mmdet.PackDetInputs')]``. They get the annotations of their task and the image's meta
            information, with a single pixel in place of the image.
    """

    def __init__(self, **tasks: Sequence[Mapping[str, Any]]) -> None:
        self.packs = {name: Compose([_built(cfg, name) for cfg in transforms]) for name, transforms in tasks.items()}

    def transform(self, results: dict) -> dict:
        """Returns ``inputs`` [3, H, W] and ``data_samples``, a :class:`MultiTaskSample`."""
        image = results['img']
        travelled = {*_BOXES, 'gt_seg_map', 'box_tasks', 'map_tasks', 'labels'}
        common = {key: value for key, value in results.items() if key not in travelled}
        common['img'] = image[:1, :1].copy()
        keys = ('img_path', 'img_id', 'ori_shape', 'img_shape', LABELS_OF_FILE)
        sample = MultiTaskSample(metainfo={key: results[key] for key in keys if key in results})
        width, height = results.get('scale_factor', (1, 1))
        if 'homography_matrix' in results:  # of all resizes, while the factor is only the last one's
            width, height = np.abs(np.diag(results['homography_matrix'])[:2])
        # the resized image without the border that Pad may have added
        content = tuple(round(side * scale) for side, scale in zip(results['ori_shape'][:2], (height, width)))
        sample.set_metainfo(dict(content_shape=content))
        for name, pack in self.packs.items():
            if (labels := results['labels'].get(name)) is not None:
                identity = {key: labels[key] for key in ('img_id', 'sample_idx') if key in labels}  # of its own files
                packed = pack({**labels, **common, **_own(results, name), **identity})
                sample.set_field(packed['data_samples'], name)
        return dict(inputs=to_tensor(np.ascontiguousarray(image.transpose(2, 0, 1))), data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({", ".join(self.packs)})'


def _own(results: dict, name: str) -> dict:
    """Returns the boxes and the segmentation map of one task from the joined ones."""
    arrays = {}
    if name in results.get('box_tasks', ()):
        number, labels = results['box_tasks'].index(name), results['gt_bboxes_labels']
        mine = np.flatnonzero(labels // _STEP == number)
        arrays = {key: results[key][mine] for key in _BOXES if key in results}
        arrays['gt_bboxes_labels'] = arrays['gt_bboxes_labels'] % _STEP
    if name in results.get('map_tasks', ()):
        number, labels = results['map_tasks'].index(name), results['gt_seg_map']
        arrays['gt_seg_map'] = labels if labels.ndim == 2 else np.ascontiguousarray(labels[..., number])
    return arrays
