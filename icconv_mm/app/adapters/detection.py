"""The adapter of mmdet."""

import copy
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import BaseDetDataset, CocoDataset, CocoPanopticDataset, XMLDataset
from mmdet.evaluation import CocoMetric
from mmdet.models.utils import mask2ndarray
from mmdet.structures.bbox import BaseBoxes
from mmdet.visualization import get_palette
from mmengine.config import Config, ConfigDict
from mmengine.fileio import list_from_file
from mmengine.logging import print_log
from torch import nn

from icconv_mm.app.adapters.base import NotSupportedError, TaskAdapter
from icconv_mm.config_tree import kind_of, walk_dicts, with_pipeline
from icconv_mm.datasets import checks
from icconv_mm.datasets.segmentations import check_segmentations, first_defect
from icconv_mm.datasets.voc import voc_defect, voc_names
from icconv_mm.errors import ArgumentError, naming
from icconv_mm.registry import DATASETS
from icconv_mm.tasks.check_levels import check_levels, has_filters, levels_of
from icconv_mm_runtime.drawing import Drawing, drawing_of
from icconv_mm_runtime.results import Arrays


class Adapter(TaskAdapter):
    """Adapter for detectors and instance segmentors of mmdet."""

    library = 'mmdet'
    kind = 'detection'
    dump_metric = 'DumpDetResults'
    autocast_modules = ('backbone', 'neck')  # the heads' CPU kernels of RoIAlign and NMS need float32
    visualization_hook = dict(type='DetVisualizationHook', draw=True)
    shown_dir = 'test_out_dir'
    coco_datasets = (CocoDataset,)
    other_heads = ('rpn_head', 'semantic_head')  # object or background; labels of another kind
    labels_of_file = False  # whether the last checked dataset has labels in pixels of the file

    def enable_tta(self, cfg: Config) -> None:
        """Enables test-time augmentation as mmdet's tool does: without ``tta_model``, with a horizontal flip.

        Boxes are then suppressed, and as many kept, as the model does; where it says nothing, as mmdet's tool does.
        """
        if 'tta_model' not in cfg:
            tests = cfg.model.get('test_cfg') or {}
            tests = tests.get('rcnn') or tests
            nms = tests.get('nms', dict(type='nms', iou_threshold=0.5))
            cfg.tta_model = dict(
                type='DetTTAModel', tta_cfg=dict(nms=copy.deepcopy(nms), max_per_img=tests.get('max_per_img', 100))
            )
        masks = [key for node in walk_dicts(cfg.model) for key in ('mask_head', 'panoptic_head') if node.get(key)]
        if masks and kind_of(cfg.tta_model) == 'DetTTAModel':
            raise NotSupportedError('tta', f'{cfg.filename}: DetTTAModel merges boxes, not the masks of {masks[0]}')
        if 'tta_pipeline' not in cfg:
            *transforms, pack = copy.deepcopy(with_pipeline(cfg.test_dataloader.dataset)[0].pipeline)
            keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
            # the original image first: a metric that reads labels from the sample gets those of the first
            flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
            test_time = dict(type='TestTimeAug', transforms=[flips, [dict(type=pack['type'], meta_keys=keys)]])
            cfg.tta_pipeline = [ConfigDict(transform) for transform in (*transforms, test_time)]
        super().enable_tta(cfg)

    def check_dataset(self, dataset: Any, where: str, loaders: Sequence[Any] = ()) -> None:
        """Checks masks, labels and class names: mmdet labels by file order (COCO) and skips unknown names (XML)."""
        # test pipelines resize before they load labels: their metrics need labels in pixels of the file
        load = next((i for i, transform in enumerate(loaders) if getattr(transform, 'with_bbox', False)), 0)
        self.labels_of_file = any('Resize' in type(transform).__name__ for transform in loaders[:load])
        load_list = type(dataset).load_data_list
        if isinstance(dataset, CocoDataset) and '://' not in dataset.ann_file:
            is_plain = load_list is CocoDataset.load_data_list
            names = _check_coco(dataset, where, is_plain)
            has_masks = any(getattr(loader, 'with_mask', False) for loader in loaders)
            ignored = _check_masks(dataset, where) if has_masks else None
            if is_plain and dataset._indices is None:  # of all images
                _check_boxes(dataset, where, names, ignored)
        elif load_list is XMLDataset.load_data_list:
            infos = (dataset.get_data_info(i) for i in range(len(dataset)))
            labels = {entry['bbox_label'] for info in infos for entry in info['instances']}
            if len(labels) < len(dataset.metainfo['classes']):  # the files are read again
                _check_xml_names(dataset, where)

    def explain_data(self, dataset_cfg: Mapping[str, Any], where: str, *, empty: bool) -> None:
        """Raises DatasetError for an XML file that lacks what mmdet reads, or for classes that no file names."""
        kind = self.dataset_class(dataset_cfg['type'])
        if not isinstance(kind, type) or not issubclass(kind, XMLDataset):
            return
        try:
            dataset = DATASETS.build({**dataset_cfg, 'type': kind, 'pipeline': [], 'lazy_init': True})
            files = _xml_files(dataset)
        except Exception:  # the files are not the reason
            return
        for file in files:
            if defect := voc_defect(file, dataset.metainfo['classes']):
                raise checks.DatasetError(f'{where}: {file}: {defect}')
        if empty:
            _check_xml_names(dataset, where)

    def check_together(self, datasets: Sequence[tuple[Any, Sequence[Any]]]) -> None:
        """Raises DatasetError if no image has a box to train on."""
        if not all(isinstance(dataset, BaseDetDataset) for dataset, _ in datasets):
            return
        infos = (dataset.get_data_info(i) for dataset, _ in datasets for i in range(len(dataset)))
        if not any(info.get('instances', True) for info in infos):
            raise checks.DatasetError('no image has a box of any class: there is nothing to learn')

    def check_model(self, model: Any, dataset: Any, where: str, training: bool) -> None:
        """Also checks the level strides of this package's necks, which an FPN's ``start_level`` before them changes."""
        super().check_model(model, dataset, where, training)
        neck = getattr(model, 'neck', None)
        modules = neck.modules() if isinstance(neck, nn.Module) else ()
        ours = any(type(module).__module__.startswith('icconv_mm.necks') for module in modules)
        if training and ours and has_filters(model):
            check_levels(model, levels_of(model), 'model', 'model.neck')

    def check_heads(self, network: Any, meta: Mapping[str, Any], name: str, where: str) -> None:
        if not hasattr(network, 'language_model'):  # its classes are words
            super().check_heads(network, meta, name, where)

    def check_metric(self, metric: Any, meta: Mapping[str, Any], where: str, source: str = 'the file') -> None:
        if not isinstance(metric, CocoMetric) or getattr(metric, '_coco_api', None) is None:
            return
        content = metric._coco_api.dataset
        with naming(f'{where}.ann_file'):
            checks.check_measures(content, source)
            if 'segm' in metric.metrics:
                check_segmentations(content, source, required=True)
        if meta.get('classes'):
            names = [entry['name'] for entry in content['categories']]
            labels = {name: label for label, name in enumerate(name for name in names if name in meta['classes'])}
            checks.check_order(meta['classes'], labels, f'{where}.ann_file', source)

    def predictions(self, sample: Any) -> Arrays:
        arrays = sample.pred_instances.cpu().numpy()
        names = {'boxes': 'bboxes', 'scores': 'scores', 'labels': 'labels', 'masks': 'masks'}
        return {name: arrays[key] for name, key in names.items() if key in arrays}

    def annotations(self, sample: Any, dataset_meta: Mapping[str, Any]) -> Drawing:
        """Returns boxes and masks as a drawing; for panoptic data also the segmentation map."""
        instances = sample.gt_instances
        boxes = instances.bboxes.tensor if isinstance(instances.bboxes, BaseBoxes) else instances.bboxes
        arrays = {'boxes': np.asarray(boxes), 'labels': np.asarray(instances.labels)}
        if 'masks' in instances:
            arrays['masks'] = mask2ndarray(instances.masks).astype(bool)
        if 'gt_sem_seg' in sample:
            arrays['seg_map'] = np.asarray(sample.gt_sem_seg.sem_seg[0])
        content = drawing_of(self.described(dataset_meta), arrays)
        content.shape = tuple(sample.ori_shape[:2]) if self.labels_of_file else None
        return content

    def colors(self, dataset_meta: Mapping[str, Any]) -> list[tuple[int, int, int]]:
        """Returns the colours as the base class does, or those of a palette that mmdet names, such as ``'coco'``."""
        if isinstance(named := dataset_meta.get('palette'), str):
            try:
                return get_palette(named, len(self.class_names(dict(dataset_meta))))
            except (KeyError, AssertionError) as error:  # of another name, or of fewer colours than classes
                raise ArgumentError('palette', f'mmdet has no palette {named!r} for these classes') from error
        return super().colors(dataset_meta)

    def enlarge(self, sample: Any, shape: tuple[int, int]) -> None:
        instances, scale = sample.pred_instances, shape[1] / sample.ori_shape[1]
        instances.bboxes = instances.bboxes * scale
        super().enlarge(sample, shape)


def _check_coco(dataset: CocoDataset, where: str, is_plain: bool) -> Mapping[int, str]:
    """Returns the categories of a plain dataset's file, which it looks up by name; other datasets have a list."""
    path, classes, labels = dataset.ann_file, dataset.metainfo['classes'], dataset.cat2label
    if len(labels) > len(classes):
        checks.check_coco_file(path)
        raise checks.DatasetError(f'{where}: {path} has {len(labels)} categories for {len(classes)} classes')
    names = checks.category_names(path) if is_plain or len(labels) < len(classes) else {}
    if names:
        checks.check_known(classes, names.values(), where, path)
        checks.check_order(classes, {names[i]: label for i, label in labels.items()}, where, path)
    return names


def _check_boxes(dataset: CocoDataset, where: str, numbers: Collection[int], ignored: list[bool] | None) -> None:
    """Raises DatasetError if mmdet skips or ignores all boxes, and warns of skipped ones, which mmdet does silently.

    The file is read again only if no box is left. ``known``: category ids in the file; ``ignored``: whether each loaded
    box is ignored, or None if not yet known.
    """
    if ignored is None:
        ignored = [
            instance['ignore_flag'] for i in range(len(dataset)) for instance in dataset.get_data_info(i)['instances']
        ]
    others = set(numbers) - set(dataset.cat2label)  # categories that the config does not name
    total = sum(len(images) for category, images in dataset.cat_img_map.items() if category not in others)
    why = (
        'without area, less than a pixel wide or high, outside their image, marked as crowds or to be ignored, of no '
        'image or category of the file'
    )
    if total and all(ignored):
        checks.check_coco_file(dataset.ann_file)
        raise checks.DatasetError(f'{where}: no box of {dataset.ann_file} is learned: all are {why}')
    if len(ignored) < total:
        text = f'{where}: mmdet leaves out {total - len(ignored)} of the {total} boxes of {dataset.ann_file}: {why}'
        print_log(text, logger='current', level=logging.WARNING)


def _check_masks(dataset: CocoDataset, where: str) -> list[bool]:
    """Checks the masks in memory, reads the file only to name a defective one; returns whether each box is ignored."""
    ignored = []

    def masks() -> Iterator[tuple[tuple[dict, dict], Any, int, int]]:
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            for instance in info['instances']:
                ignored.append(instance['ignore_flag'])
                yield (info, instance), instance.get('mask'), info['height'], info['width']

    if not isinstance(dataset, CocoPanopticDataset) and (problem := first_defect(masks())):
        (info, instance), defect = problem
        content = checks.check_coco_file(dataset.ann_file)
        image = next(image for image in content['images'] if image['id'] == info['img_id'])
        same = (annotation for annotation in content['annotations'] if _is_instance(annotation, info, instance))
        raise checks.DatasetError(f'{where}: {checks.location_of(next(same), image, dataset.ann_file)}: {defect}')
    return ignored


def _is_instance(annotation: Mapping[str, Any], info: Mapping[str, Any], instance: Mapping[str, Any]) -> bool:
    """Returns whether mmdet made this instance from an annotation of the file."""
    x, y, width, height = annotation['bbox']
    entry = annotation['image_id'], annotation.get('segmentation') or None, [x, y, x + width, y + height]
    return str(entry) == str((info['img_id'], instance.get('mask'), list(instance['bbox'])))  # NaN is not equal to NaN


def _check_xml_names(dataset: XMLDataset, where: str) -> None:
    names = voc_names(file for file in _xml_files(dataset) if file.is_file())
    checks.check_known(dataset.metainfo['classes'], sorted(names), where, f'the files of {_xml_folder(dataset)}')


def _xml_folder(dataset: XMLDataset) -> Path:
    return Path(dataset.sub_data_root, dataset.ann_subdir)


def _xml_files(dataset: XMLDataset) -> list[Path]:
    return [_xml_folder(dataset) / f'{name}.xml' for name in list_from_file(dataset.ann_file)]
