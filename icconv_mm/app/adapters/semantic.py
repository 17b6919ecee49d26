"""The adapter of mmseg."""

import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook

from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.app.adapters.ignored import OTHER_HEADS, ignore_index, ignoring_hooks
from icconv_mm.config_tree import join_root, kind_of
from icconv_mm.datasets import seg_maps
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.registry import scoped
from icconv_mm.tasks.semantic.data import LoadSegMap
from icconv_mm_runtime.drawing import Drawing, drawing_of
from icconv_mm_runtime.results import Arrays

_MAPS, _SECONDS = 32, 1.0  # segmentation maps and time for checks before training, per dataset


class Adapter(TaskAdapter):
    """Adapter for semantic segmentors of mmseg."""

    library = 'mmseg'
    kind = 'semantic'
    other_heads = OTHER_HEADS

    def showing(self, show: bool, out_dir: str | None, wait_time: float) -> tuple[dict, str | None]:
        return dict(type='SegVisualizationHook', draw=True, interval=1, show=show, wait_time=wait_time), out_dir

    # --- datasets ---

    def check_dataset(self, dataset: Any, where: str, loaders: Sequence[Any] = ()) -> None:
        """Checks some segmentation maps, spread over the dataset; every map is checked again when it is read."""
        if (loader := _label_loader(loaders)) is None:
            return
        until = time.monotonic() + _SECONDS
        for info in _infos(dataset, max(1, len(dataset) // _MAPS)):
            if time.monotonic() > until:
                return
            path = info['seg_map_path']
            if not Path(path).is_file():
                suffix = f'seg_map_suffix {dataset.seg_map_suffix!r}' if hasattr(dataset, 'seg_map_suffix') else 'it'
                there = seg_maps.suffixes_in(Path(path).parent) if Path(path).parent.is_dir() else 'no such folder'
                raise DatasetError(
                    f'{where}: no segmentation map {path} of {info["img_path"]}: see {suffix}; the folder has {there}'
                )
            labels = seg_maps.read_seg_map(path)
            defect = seg_maps.seg_map_defect(labels, 1 << 32)  # checks the format only: training sees other labels
            if defect is None and loader.num_classes:
                reduced = info.get('reduce_zero_label', False)
                learned = seg_maps.learned(seg_maps.labels_in(labels), reduced, info.get('label_map'))
                defect = seg_maps.labels_defect(sorted(learned), loader.num_classes, loader.ignored, reduced)
            if defect:
                raise DatasetError(f'{where}: {path}: {defect}')

    def check_together(self, datasets: Sequence[tuple[Any, Sequence[Any]]]) -> None:
        """Raises DatasetError if fewer than two classes occur; all maps are read if a sample of them has fewer."""
        learned: set[int] = set()
        loader = None
        for step in (_MAPS, None):
            for dataset, loaders in datasets:
                if (loader := _label_loader(loaders) or loader) is None or not loader.num_classes:
                    return
                for info in _infos(dataset, max(1, len(dataset) // step) if step else 1):
                    labels = seg_maps.labels_in(seg_maps.read_seg_map(info['seg_map_path']))
                    learned |= seg_maps.learned(labels, info.get('reduce_zero_label', False), info.get('label_map'))
                    if seg_maps.nothing_to_learn(learned, loader.num_classes, loader.ignored) is None:
                        return
        if learned and (problem := seg_maps.nothing_to_learn(learned, loader.num_classes, loader.ignored)):
            raise DatasetError(problem)

    def explain_data(self, dataset_cfg: Mapping[str, Any], where: str, *, empty: bool) -> None:
        """Raises DatasetError if the image folder has only files with another suffix."""
        kind = self.dataset_class(dataset_cfg['type'])
        suffix = dataset_cfg.get('img_suffix', '.jpg')
        prefix = (dataset_cfg.get('data_prefix') or {}).get('img_path', '')
        folder = Path(join_root(dataset_cfg.get('data_root') or '', prefix))
        if empty and kind is not None and folder.is_dir() and not any(folder.rglob(f'*{suffix}')):
            there = seg_maps.suffixes_in(folder)
            raise DatasetError(
                f'{where}: no file in {folder} ends in {suffix!r}, its img_suffix; the folder has {there}'
            )

    def prepare_loader(self, node: dict, dataset_cfg: Mapping[str, Any], model_cfg: Mapping[str, Any]) -> None:
        is_ours = kind_of(node) == LoadSegMap.__name__  # in a config written by a run
        if not is_ours and (kind_of(node) != 'LoadAnnotations' or str(node['type']).startswith('mmdet.')):
            return
        node['type'] = scoped(LoadSegMap)
        node['num_classes'] = len(self.classes(dataset_cfg)) or None
        node['ignored'] = sorted({ignore_index(model_cfg), seg_maps.IGNORED})

    def hooks(
        self, model_cfg: Mapping[str, Any], metrics: Sequence[MutableMapping[str, Any]], task: str = ''
    ) -> list[Hook]:
        return ignoring_hooks(task, model_cfg, metrics)

    # --- inference ---

    def predictions(self, sample: Any) -> Arrays:
        return {'seg_map': sample.pred_sem_seg.data[0].cpu().numpy()}

    def uncertainty(self, sample: Any) -> float:
        """Returns the mean over all pixels of 1 minus the margin between the two best classes."""
        logits = sample.seg_logits.data.float()
        if len(logits) == 1:  # of a sigmoid, which mmseg has applied
            return float(1 - (2 * logits - 1).abs().mean())
        best = logits.softmax(0).topk(2, dim=0).values
        return float(1 - (best[0] - best[1]).mean())

    def annotations(self, sample: Any, dataset_meta: Mapping[str, Any]) -> Drawing:
        labels = {'seg_map': np.asarray(sample.gt_sem_seg.data[0])} if 'gt_sem_seg' in sample else {}
        return drawing_of(self.described(dataset_meta), labels)


def _label_loader(loaders: Sequence[Any]) -> LoadSegMap | None:
    return next((loader for loader in loaders if isinstance(loader, LoadSegMap)), None)


def _infos(dataset: Any, step: int) -> Iterator[dict]:
    """Yields the info of every ``step``-th image, if its segmentation map is on this machine."""
    for i in range(0, len(dataset), step):
        info = dataset.get_data_info(i)
        if info.get('seg_map_path') and '://' not in info['seg_map_path']:
            yield info
