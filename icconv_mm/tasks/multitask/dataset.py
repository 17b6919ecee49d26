"""Images with the labels of several tasks, each read by a dataset of its own library."""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.registry import DATASETS as ROOT_DATASETS

from icconv_mm.errors import InputError, building
from icconv_mm.registry import DATASETS
from icconv_mm.tasks.libraries import registered_class


@DATASETS.register_module()
class MultiTaskDataset(BaseDataset):
    """One set of images, labelled for several tasks by files that the libraries' own datasets read.

    The datasets are joined by the path of the image. An image that one of them does not list has no labels for that
    task, which is not the same as labels that say that nothing is there: keep empty images with
    ``filter_cfg=dict(filter_empty_gt=False)`` (mmdet) or ``keep_empty=True`` (``BottomupCocoDataset``). Sets of
    different images go into a :class:`MultiTaskConcatDataset`.

    An item has ``img_path``, ``img_id`` and ``labels``: what each task's dataset says of the image, by name.

    Args:
        datasets: The config of a dataset for each task, by the name that the task has in the model, without pipeline.
        pipeline: The transforms of all tasks.
        test_mode: Whether the dataset is for tests; given to the datasets that do not say it themselves.
        kwargs: Arguments of mmengine's ``BaseDataset``.

    Raises:
        InputError: There is no dataset, one cannot be built, or two have no image in common.
    """

    def __init__(
        self,
        datasets: Mapping[str, Mapping[str, Any]],
        pipeline: Sequence[Mapping[str, Any]] = (),
        test_mode: bool = False,
        **kwargs,
    ) -> None:
        if not datasets:
            raise InputError('datasets: no task')
        self.datasets: dict[str, BaseDataset] = {}
        for name, cfg in datasets.items():
            registered_class(DATASETS, cfg.get('type'), f'datasets.{name}.type')
            with building(f'datasets.{name}'):
                self.datasets[name] = ROOT_DATASETS.build({'test_mode': test_mode, **copy.deepcopy(dict(cfg))})
        metainfo = {name: dataset.metainfo for name, dataset in self.datasets.items()}
        super().__init__(
            metainfo=metainfo, pipeline=list(pipeline), test_mode=test_mode, serialize_data=False, **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """For each image its path and its index in the dataset of every task that has it."""
        images: dict[str, dict[str, int]] = {}
        for name, dataset in self.datasets.items():
            dataset.full_init()
            for index in range(len(dataset)):
                images.setdefault(_path_of(dataset, index), {})[name] = index
        self._check_joined(images)
        return [dict(img_path=path, indices=indices) for path, indices in images.items()]

    def get_data_info(self, idx: int) -> dict:
        """``img_path``, ``img_id`` and the ``labels`` of an image, and its place ``sample_idx``."""
        entry = super().get_data_info(idx)
        labels = {name: self.datasets[name].get_data_info(index) for name, index in entry['indices'].items()}
        ids = (info['img_id'] for info in labels.values() if info.get('img_id') is not None)
        return dict(img_path=entry['img_path'], img_id=next(ids, idx), labels=labels, sample_idx=entry['sample_idx'])

    def _check_joined(self, images: Mapping[str, Mapping[str, int]]) -> None:
        (first, dataset), *others = self.datasets.items()
        for name, other in others:
            if not any(first in indices and name in indices for indices in images.values()):
                paths = [_path_of(each, 0) if len(each) else 'none' for each in (dataset, other)]
                raise InputError(
                    f'datasets.{first} has {len(dataset)} images and datasets.{name} has {len(other)}, none in '
                    f'common ({paths[0]}; {paths[1]}): sets of different images go into '
                    'icconv_mm.MultiTaskConcatDataset'
                )


def _path_of(dataset: BaseDataset, index: int) -> str:
    return os.path.abspath(dataset.get_data_info(index)['img_path'])


@DATASETS.register_module()
class MultiTaskConcatDataset(ConcatDataset):
    """mmengine's ``ConcatDataset`` of :class:`MultiTaskDataset` that are labelled for different tasks.

    ``mmdet.MultiSourceSampler`` draws from them by a ratio.

    Args:
        datasets: Datasets, or configs of them.
        kwargs: Arguments of ``ConcatDataset``.

    Raises:
        InputError: Two of them say something different of one task, such as other classes.
    """

    def __init__(self, datasets: Sequence[BaseDataset | Mapping[str, Any]], **kwargs) -> None:
        built = []
        for i, dataset in enumerate(datasets):
            with building(f'datasets[{i}]'):
                built.append(ROOT_DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset)
        merged: dict[str, Any] = {}
        for i, dataset in enumerate(built):
            for name, meta in dataset.metainfo.items():
                first = merged.setdefault(name, meta)
                for key in ('classes', 'num_keypoints', 'dataset_keypoint_weights'):
                    if str(first.get(key)) != str(meta.get(key)):
                        raise InputError(f'datasets[{i}], {name}: {key} {meta.get(key)}, before it {first.get(key)}')
        super().__init__(built, ignore_keys=list(merged), **kwargs)
        self._metainfo = merged
