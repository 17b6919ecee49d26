"""Datasets, batches and metrics of one network for several tasks."""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.dist import get_dist_info
from mmengine.evaluator import BaseMetric
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor
from torch.nn.functional import pad

from icconv_mm.config_tree import datasets_in
from icconv_mm.datasets.reading import no_garbage_search
from icconv_mm.errors import InputError, naming
from icconv_mm.registry import DATASETS, METRICS, MODELS
from icconv_mm.tasks.libraries import library_of, registered_class


@DATASETS.register_module()
class MultiTaskDataset(BaseDataset):
    """Images with annotations for several tasks, which the libraries' own datasets read.

    The datasets are joined by the path of the image. An image that a dataset does not list is unlabelled for its task,
    not empty. Keep empty images with
    ``filter_cfg=dict(filter_empty_gt=False)`` (mmdet) or ``keep_empty=True`` (``BottomupCocoDataset``). Combine
    datasets of different images in a :class:`MultiTaskConcatDataset`.

    An item has ``img_path``, ``img_id`` and ``labels``: the image's info from each task's dataset, by name.

    Args:
        datasets: The config of a dataset for each task, by the task's name in the model, without pipeline.
        pipeline: The transforms of all tasks.
        test_mode: Whether the dataset is for tests; passed to the datasets that do not set it.
        lazy_init: Whether to read no file yet, for callers that need only class names; passed to the datasets as well.
        kwargs: Arguments of mmengine's ``BaseDataset``.

    Raises:
        InputError: If ``datasets`` is empty, one cannot be built or has an image twice, or two share no image.
    """

    def __init__(
        self,
        datasets: Mapping[str, Mapping[str, Any]],
        pipeline: Sequence[Mapping[str, Any]] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
        **kwargs,
    ) -> None:
        if not datasets:
            raise InputError('datasets: no task')
        self.datasets: dict[str, BaseDataset] = {}
        for name, cfg in datasets.items():
            registered_class(DATASETS, cfg.get('type'), f'datasets.{name}.type')
            with naming(f'datasets.{name}', Exception), no_garbage_search():
                self.datasets[name] = ROOT_DATASETS.build({'test_mode': test_mode, **_copied(cfg, lazy_init)})
        metainfo = {name: dataset.metainfo for name, dataset in self.datasets.items()}
        settings = dict(pipeline=list(pipeline), test_mode=test_mode, lazy_init=lazy_init, serialize_data=False)
        super().__init__(metainfo=metainfo, **settings, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Returns for each image its path, and its index in the dataset of every task that has it."""
        images: dict[str, dict[str, int]] = {}
        for name, dataset in self.datasets.items():
            dataset.full_init()
            for index in range(len(dataset)):
                indices = images.setdefault(path := _path_of(dataset, index), {})
                if name in indices:
                    ids = ' and '.join(str(dataset.get_data_info(i).get('img_id', i)) for i in (indices[name], index))
                    raise InputError(f'datasets.{name}: two entries for {path}, of ids {ids}: which is meant?')
                indices[name] = index
        (first, dataset), *others = self.datasets.items()
        for name, other in others:
            if not any(first in indices and name in indices for indices in images.values()):
                paths = [_path_of(part, 0) if len(part) else 'none' for part in (dataset, other)]
                raise InputError(
                    f'datasets.{first} has {len(dataset)} images and datasets.{name} has {len(other)}, none in '
                    f'common ({paths[0]}; {paths[1]}): sets of different images go into '
                    'icconv_mm.MultiTaskConcatDataset'
                )
        return [dict(img_path=path, indices=indices) for path, indices in images.items()]

    def get_data_info(self, idx: int) -> dict:
        """Returns ``img_path``, ``img_id`` and the ``labels`` of an image, and its index ``sample_idx``."""
        entry = super().get_data_info(idx)
        labels = {name: self.datasets[name].get_data_info(index) for name, index in entry['indices'].items()}
        ids = (info['img_id'] for info in labels.values() if info.get('img_id') is not None)
        return dict(img_path=entry['img_path'], img_id=next(ids, idx), labels=labels, sample_idx=entry['sample_idx'])


def _copied(cfg: Mapping[str, Any], lazy_init: bool) -> dict[str, Any]:
    """Returns a copy of a dataset config; with ``lazy_init``, neither it nor the datasets inside read a file yet."""
    copied = copy.deepcopy(dict(cfg))
    for _, node in datasets_in(copied, '') if lazy_init else ():
        node['lazy_init'] = True
    return copied


def _path_of(dataset: BaseDataset, index: int) -> str:
    return os.path.abspath(dataset.get_data_info(index)['img_path'])


@DATASETS.register_module()
class MultiTaskConcatDataset(ConcatDataset):
    """mmengine's ``ConcatDataset`` of :class:`MultiTaskDataset` with annotations for different tasks.

    ``mmdet.MultiSourceSampler`` draws from them by a ratio.

    Args:
        datasets: Datasets, or configs of them.
        lazy_init: As for :class:`MultiTaskDataset`.
        kwargs: Arguments of ``ConcatDataset``.

    Raises:
        InputError: Two datasets differ in the metainfo of a task, such as its classes.
    """

    def __init__(self, datasets: Sequence[BaseDataset | Mapping[str, Any]], lazy_init: bool = False, **kwargs) -> None:
        built = []
        for i, dataset in enumerate(datasets):
            with naming(f'datasets.{i}', Exception):
                given = _copied(dataset, lazy_init) if isinstance(dataset, Mapping) else dataset
                built.append(ROOT_DATASETS.build(given) if isinstance(given, Mapping) else given)
        merged: dict[str, Any] = {}
        for i, dataset in enumerate(built):
            for name, meta in dataset.metainfo.items():
                first = merged.setdefault(name, meta)
                for key in ('classes', 'num_keypoints', 'dataset_keypoint_weights'):
                    if str(first.get(key)) != str(meta.get(key)):
                        raise InputError(f'datasets.{i}, {name}: {key} {meta.get(key)}, before it {first.get(key)}')
        super().__init__(built, lazy_init=lazy_init, ignore_keys=list(merged), **kwargs)
        self._metainfo = merged


@MODELS.register_module()
class MultiTaskDataPreprocessor(ImgDataPreprocessor):
    """Normalises and stacks images as mmdet does, once for all tasks.

    Each sample gets the position of its image in the batch, in the terms of its library; in training, segmentation maps
    are padded to the batch.

    Args:
        mean, std, pad_size_divisor, pad_value, bgr_to_rgb, rgb_to_bgr, non_blocking: The arguments of mmengine's
            ``ImgDataPreprocessor``.
        pad_mask: Whether instance masks are padded as well, as mmdet's Mask2Former and similar models need.
        seg_pad_val: Label of padded pixels in segmentation maps.
    """

    def __init__(self, *args, pad_mask: bool = False, seg_pad_val: int = 255, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.pad_mask, self.seg_pad_val = pad_mask, seg_pad_val

    def forward(self, data: dict, training: bool = False) -> dict:
        """Returns ``inputs`` [N, 3, H, W], float32, and ``data_samples``; images in ``inputs`` may differ in size."""
        shapes = [tuple(image.shape[-2:]) for image in data['inputs']]
        data = super().forward(data, training)
        batch_shape = tuple(data['inputs'].shape[-2:])
        for shape, sample in zip(shapes, data.get('data_samples') or ()):
            content = tuple(map(min, shape, sample.metainfo.get('content_shape', shape)))
            for element in filter(lambda value: isinstance(value, BaseDataElement), sample.values()):
                element.set_metainfo(self._location(element, shape, content, batch_shape))
                for (
                    instances
                ) in element.values():  # heads expect tensors [N, 4], not mmdet's box objects of the pipeline
                    if isinstance(instances, InstanceData) and not isinstance(instances.get('bboxes'), Tensor | None):
                        instances.bboxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
                if training:
                    self._pad_labels(element, batch_shape)
        return data

    def _location(
        self, sample: BaseDataElement, shape: tuple[int, int], content: tuple[int, int], batch_shape: tuple[int, int]
    ) -> dict[str, Any]:
        """Returns the batch metainfo of an input of ``shape`` whose part of shape ``content`` shows the image."""
        padded = tuple(-(-side // self.pad_size_divisor) * self.pad_size_divisor for side in shape)
        metainfo = dict(batch_input_shape=batch_shape, pad_shape=padded)
        library = library_of(type(sample))
        if library == 'mmseg':  # its heads resize logits to pad_shape, its networks crop padding_size
            metainfo['pad_shape'] = batch_shape
            beyond = [0, batch_shape[1] - content[1], 0, batch_shape[0] - content[0]]
            metainfo['padding_size'] = metainfo['img_padding_size'] = beyond
        if library == 'mmpose':
            metainfo.update(_shown_region(content, batch_shape, sample.metainfo.get('ori_shape', content)))
        return metainfo

    def _pad_labels(self, sample: BaseDataElement, shape: tuple[int, int]) -> None:
        if 'gt_sem_seg' in sample:
            labels = sample.gt_sem_seg.data
            beyond = (0, shape[1] - labels.shape[-1], 0, shape[0] - labels.shape[-2])
            sample.gt_sem_seg = PixelData(data=pad(labels, beyond, value=self.seg_pad_val))
        if self.pad_mask and 'masks' in sample.get('gt_instances', ()):
            sample.gt_instances.masks = sample.gt_instances.masks.pad(shape)


def _shown_region(content: Sequence[int], batch_shape: Sequence[int], ori_shape: Sequence[int]) -> dict[str, Any]:
    """Returns the metainfo by which mmpose maps keypoints back: the region shown by the batch, with padding.

    A keypoint is the index of a pixel: pixel x of the network lies at (x + 0.5) / scale - 0.5 in the original.
    """
    scale = np.array([content[1] / ori_shape[1], content[0] / ori_shape[0]])
    extent = np.array([batch_shape[1], batch_shape[0]]) / scale
    center = extent / 2 + (0.5 / scale - 0.5)
    region = dict(input_center=center.astype(np.float32), input_scale=extent.astype(np.float32))
    return dict(input_size=(batch_shape[1], batch_shape[0]), **region)


@METRICS.register_module()
class TaskMetric(BaseMetric):
    """Runs a library's own metric on the samples of a task, with its class names; its values get the prefix ``TASK/``.

    Args:
        task: Name of the task.
        metric: Config of the metric, such as ``dict(type='mmdet.CocoMetric', ann_file=...)``.
    """

    def __init__(self, task: str, metric: Mapping[str, Any]) -> None:
        super().__init__(prefix=task)
        registered_class(ROOT_METRICS, metric.get('type'), f'metric of {task}')
        self.task = task
        self.metric = ROOT_METRICS.build(metric)
        self._images, self._results = 0, 0  # images seen by this process; the metric's results before the last of them

    @property
    def dataset_meta(self) -> dict | None:
        """Metainfo of the task's dataset."""
        return self.metric.dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, dict]) -> None:
        self.metric.dataset_meta = meta.get(self.task)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Passes the samples that have the task to the metric."""
        for sample in data_samples:
            self._images, self._results = self._images + 1, len(self.metric.results)
            if self.task in sample:
                self.metric.process(data_batch, [sample[self.task]])

    def evaluate(self, size: int) -> dict:
        """Returns the metric's values for ``size`` images.

        A sampler that gives every process the same number of images repeats some at the end. mmengine cuts the results
        at ``size``, which has no effect if some images lack the task: so the repeated one is dropped here.
        """
        rank, processes = get_dist_info()
        if (self._images - 1) * processes + rank >= size:
            del self.metric.results[self._results :]
        self._images = 0
        return {f'{self.task}/{key}': value for key, value in self.metric.evaluate(size).items()}

    def compute_metrics(self, results: list) -> dict:
        """Returns the values of the task's metric, by name."""
        return self.metric.compute_metrics(results)
