"""Base class of the task adapters: what the tools need to know about a task, and its results in COCO format.

Each library's folder has a subclass of :class:`TaskAdapter`, ``Adapter``.
"""

import itertools
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import DATASETS

from icconv_mm.checkpoints.metadata import dataset_meta_of
from icconv_mm.config_tree import DatasetAt, leaf_datasets, with_pipeline
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.datasets.keypoints import read_names
from icconv_mm.errors import ArgumentError, InputError, naming
from icconv_mm_runtime.drawing import Drawing, drawing_of, palette
from icconv_mm_runtime.results import Arrays

if TYPE_CHECKING:
    from torch import nn

# top-level keys of a config that test-time augmentation needs
TTA_KEYS = ('tta_model', 'tta_pipeline')
# phases whose datasets give a model's class names if its checkpoint does not, in this order
PHASES_TO_NAME = ('test', 'val', 'train')


class NotSupportedError(ArgumentError):
    """The task or the config does not support an argument."""


def metainfo_of(kind: Any, dataset_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metainfo of a dataset class, updated by its config's, by lower-case name.

    Names may be in a file that the config names, as mmengine allows.

    Raises:
        MissingFileError, InputError: Such a file does not exist or cannot be read.
    """
    metainfo = dict(dataset_cfg.get('metainfo') or {})
    if dataset_cfg.get('classes') is not None:  # an argument of mmpretrain's datasets
        metainfo = {'classes': dataset_cfg['classes'], **metainfo}
    metainfo = read_names(metainfo)
    return {key.lower(): value for source in (getattr(kind, 'METAINFO', {}), metainfo) for key, value in source.items()}


def metainfo_of_built(dataset: Any) -> Mapping[str, Any]:
    """Returns the metainfo of a built dataset; for a wrapper without any, that of its first dataset."""
    metainfo = getattr(dataset, 'metainfo', None)
    return metainfo if isinstance(metainfo, Mapping) else getattr(next(leaf_datasets(dataset, ''))[1], 'metainfo', {})


class TaskAdapter:
    """Defaults for every OpenMMLab library; a task overrides what differs.

    In the methods, ``dataset`` and ``metric`` are built, ``dataset_cfg`` and ``model_cfg`` are configs, ``meta`` is the
    metainfo of the dataset, and ``where`` and ``name`` are locations in the config, for errors.

    Attributes:
        library: Import name of the library, the ``default_scope`` of its configs.
        kind: Kind of its predictions, as named by :mod:`icconv_mm_runtime`.
        dump_metric: Metric that writes predictions to a pickle file (``out`` of :func:`icconv_mm.apis.test`).
        autocast_modules: Names of the model's children that run in bfloat16 when training with ``amp`` on a CPU; None
            for the whole model. If a head calls an operator of mmcv, only the modules before it can.
        visualization_hook: Config of the hook that shows predictions.
        shown_dir: The hook's argument for the folder of the images that it writes.
        coco_datasets: Dataset classes that read annotation files in COCO format.
        other_heads: Names or types of heads whose ``num_classes`` is not the dataset's number of classes.
    """

    library: str = ''
    kind: str = ''
    dump_metric: str = 'DumpResults'
    autocast_modules: tuple[str, ...] | None = None
    visualization_hook: Mapping[str, Any] = dict(type='VisualizationHook', enable=True, interval=1)
    shown_dir: str = 'out_dir'
    coco_datasets: tuple[type, ...] = ()
    other_heads: tuple[str, ...] = ()

    # --- tests ---

    def showing(self, show: bool, out_dir: str | None, wait_time: float) -> tuple[dict, str | None]:
        """Returns the config of the hook that shows predictions on screen or writes them to ``out_dir``.

        And the folder of the visualiser that it writes by, if it has no argument for that.
        """
        return dict(self.visualization_hook, show=show, wait_time=wait_time) | {self.shown_dir: out_dir}, None

    def enable_tta(self, cfg: Config) -> None:
        """Changes ``cfg`` so that testing averages over augmented copies of each image."""
        missing = [name for name in TTA_KEYS if name not in cfg]
        if missing:
            raise NotSupportedError('tta', f'{cfg.filename} does not define {" and ".join(missing)}')
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
        for dataset in with_pipeline(cfg.test_dataloader.dataset):
            dataset.pipeline = cfg.tta_pipeline

    def enable_scales(self, model: dict) -> bool:
        """Changes a model's config so that the model itself tests at several scales; returns False if it cannot."""
        return False

    # --- datasets ---

    def check(self, model: 'nn.Module | None', dataset: Any, where: str, training: bool) -> None:
        """Raises DatasetError or InputError if data are invalid, or the model cannot be trained on them.

        ``model`` has no wrappers, and is None if there is none; ``training``: whether it is trained on the dataset.
        """
        defects = []
        for name, leaf, loaders in self.with_loaders(dataset, where):
            if len(leaf) == 0:
                raise DatasetError(f'{name}: the dataset is empty')
            self.check_dataset(leaf, name, loaders)
            defects.append((leaf, loaders))
        if training:
            with naming(where):
                self.check_together(defects)
        if model is not None:
            self.check_model(model, dataset, where, training)

    def with_loaders(self, dataset: Any, where: str) -> Iterator[tuple[str, Any, Sequence[Any]]]:
        """Yields the name in the config, the dataset and its loading transforms, for each dataset that reads files."""
        for name, leaf in leaf_datasets(dataset, where):
            yield name, leaf, getattr(getattr(leaf, 'pipeline', None), 'transforms', ())

    def check_dataset(self, dataset: Any, where: str, loaders: Sequence[Any] = ()) -> None:
        """Checks one dataset that reads files, with its loading transforms, as part of :meth:`check`."""

    def check_together(self, datasets: Sequence[tuple[Any, Sequence[Any]]]) -> None:
        """Checks all training datasets together, with their loading transforms, as part of :meth:`check`."""

    def check_model(self, model: 'nn.Module', dataset: Any, where: str, training: bool) -> None:
        """Checks the model against the dataset, as part of :meth:`check`."""
        self.check_heads(model, metainfo_of_built(dataset), 'model', where)

    def check_heads(self, network: 'nn.Module', meta: Mapping[str, Any], name: str, where: str) -> None:
        """Raises InputError if class or keypoint numbers of heads, or weights of losses, do not match the dataset."""
        classes, count = meta.get('classes') or (), meta.get('num_keypoints')
        numbers = {len(classes), len(meta.get('thing_classes') or classes)}  # panoptic heads predict COCO's things
        others: tuple[str, ...] = ()
        for path, module in network.named_modules():
            part = next((part for part in reversed(path.split('.')) if not part.isdigit()), '')
            if {part, type(module).__name__} & set(self.other_heads):
                others += (f'{path}.',)
            elif classes and part.endswith('head'):
                number = getattr(module, 'num_classes', None)
                if isinstance(number, int) and number not in numbers:
                    raise InputError(
                        f'{name}.{path}.num_classes is {number}, but {where} has {len(classes)} classes: '
                        f'{", ".join(map(str, classes[:8]))}{", ..." if len(classes) > 8 else ""}'
                    )
            weights = getattr(module, 'class_weight', None)
            if classes and isinstance(weights, list | tuple) and not path.startswith(others):
                # detectors may weight the background as well; a single value weights a single output
                allowed = numbers | {1} | (set() if 'loss_decode' in path else {number + 1 for number in numbers})
                if len(weights) not in allowed:
                    raise InputError(
                        f'{name}.{path}.class_weight has {len(weights)} values, but {where} has {len(classes)} classes'
                    )
            number = getattr(module, 'num_keypoints', None)
            if count and isinstance(number, int) and number != count:
                raise InputError(f'{name}.{path}.num_keypoints is {number}, but {where} has {count} keypoints')

    def check_names(self, network: 'nn.Module', meta: Mapping[str, Any], where: str) -> None:
        """Raises InputError if ``meta``, of ``where``, has fewer class names than a head of the network has classes."""
        names = self.class_names(meta)
        if self.kind == 'pose' or hasattr(network, 'language_model'):  # of one class; of which words are the classes
            return
        for path, module in network.named_modules():
            attribute, count = path.rpartition('.')[2], getattr(module, 'num_classes', None)
            is_other = {attribute, type(module).__name__} & set(self.other_heads)
            if attribute.endswith('head') and not is_other and isinstance(count, int) and count > len(names):
                raise InputError(f'{where} names {len(names)} classes, but {path} of the model has {count}')

    def check_metric(self, metric: Any, meta: Mapping[str, Any], where: str, source: str = 'the file') -> None:
        """Raises DatasetError if the annotations read by a metric do not match the dataset or lack a required field."""

    def explain_data(self, dataset_cfg: Mapping[str, Any], where: str, *, empty: bool) -> None:
        """Raises DatasetError if the task knows why a dataset without COCO files cannot be built or is ``empty``."""

    def prepare_loaders(self, datasets: Mapping[str, Sequence[DatasetAt]], model_cfg: Mapping[str, Any]) -> None:
        """Makes loading transforms check annotations that can only be checked when they are read.

        The configs of the datasets, given by phase, are changed in place.
        """
        for dataset in itertools.chain(*datasets.values()):
            for node in dataset.transforms if dataset.is_leaf else ():
                self.prepare_loader(node.cfg, dataset.cfg, model_cfg)

    def prepare_loader(self, node: dict, dataset_cfg: Mapping[str, Any], model_cfg: Mapping[str, Any]) -> None:
        """Changes one transform of a dataset for a model, given as configs, as part of :meth:`prepare_loaders`."""

    def is_coco(self, dataset_type: str) -> bool:
        """Returns whether datasets of this type read annotation files in COCO format."""
        kind = self.dataset_class(dataset_type)
        return isinstance(kind, type) and issubclass(kind, self.coco_datasets)

    def dataset_class(self, kind: str | type) -> Any:
        """Returns the dataset class of a ``type``: a class, or a name with or without scope; None if unknown."""
        if not isinstance(kind, str):
            return kind
        return DATASETS.get(kind if '.' in kind or not self.library else f'{self.library}.{kind}')

    def classes(self, dataset_cfg: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the class names of a dataset config: from its ``metainfo``, else those of its type."""
        return tuple(metainfo_of(self.dataset_class(dataset_cfg['type']), dataset_cfg).get('classes') or ())

    def hooks(
        self, model_cfg: Mapping[str, Any], metrics: Sequence[MutableMapping[str, Any]], task: str = ''
    ) -> list[Hook]:
        """Returns hooks that a run needs, for configs of a model and its metrics, changed in place.

        ``task`` is the name in a network of several.
        """
        return []

    # --- inference ---

    def dataset_meta(self, checkpoint: Any, datasets: Mapping[str, Sequence[DatasetAt]] | None = None) -> dict:
        """Returns class names and colours: from a checkpoint's content, else from the datasets of each phase.

        Raises:
            InputError: The checkpoint's metainfo has a form that no library writes.
        """
        meta = dataset_meta_of(checkpoint)
        for phase in PHASES_TO_NAME:
            leaf = next((dataset.cfg for dataset in (datasets or {}).get(phase, ()) if dataset.is_leaf), None)
            if leaf is not None and not ({'classes', 'palette'} <= meta.keys() or 'keypoint_id2name' in meta):
                meta = {**metainfo_of(self.dataset_class(leaf['type']), leaf), **meta}
        return meta

    def parts(self, dataset_meta: dict) -> 'dict[str, tuple[TaskAdapter, dict]]':
        """Returns a network's tasks by name, each with its adapter and metainfo; '' is the name of a single task."""
        return {'': (self, dataset_meta)}

    def class_names(self, dataset_meta: dict) -> tuple[str, ...]:
        """Returns the class names by label."""
        return tuple(dataset_meta.get('classes') or ())

    def model_input(self, path: str, dataset_meta: dict) -> dict:
        """Returns the input of the test pipeline's first transform for the image at ``path``."""
        return {'img_path': path, 'img_id': 0}

    def predictions(self, sample: Any) -> Arrays:
        """Returns a model's predictions for an image, with the names that :mod:`icconv_mm_runtime` uses.

        Masks may be smaller than the image.
        """
        raise NotImplementedError

    def uncertainty(self, sample: Any) -> float:
        """Returns how unsure a model is of its predictions for an image, from 0 to 1.

        Of objects it is the mean of 4 s (1 - s) by their scores s, weighted by these; 0 without any.
        """
        scores = np.asarray(self.predictions(sample)['scores'], float).clip(0, 1)
        return float((4 * scores**2 * (1 - scores)).sum() / scores.sum()) if scores.sum() > 0 else 0.0

    def drawing(self, sample: Any, dataset_meta: Mapping[str, Any], score_thr: float | None) -> Drawing:
        """Returns a model's predictions as a drawing, from ``score_thr`` up; None for the threshold of each class."""
        return drawing_of(self.described(dataset_meta), self.predictions(sample), score_thr)

    def annotations(self, sample: Any, dataset_meta: Mapping[str, Any]) -> Drawing:
        """Returns the annotations in a packed item of a dataset as a drawing on its image."""
        raise NotImplementedError

    def described(self, dataset_meta: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a task's description as in an exported file: its kind, and its classes' names and colours."""
        names = self.class_names(dict(dataset_meta))
        description = {'kind': self.kind, 'classes': names, 'palette': self.colors(dataset_meta)}
        return description | ({'thresholds': dataset_meta['thresholds']} if dataset_meta.get('thresholds') else {})

    def colors(self, dataset_meta: Mapping[str, Any]) -> list[tuple[int, int, int]]:
        """Returns the colour (R, G, B) of each class: the dataset's, else distinct ones."""
        count, palette_of_config = len(self.class_names(dict(dataset_meta))), dataset_meta.get('palette')
        colors = (
            palette_of_config
            if isinstance(palette_of_config, (list, tuple)) and len(palette_of_config) >= count
            else palette(count)
        )
        return [tuple(map(int, color)) for color in colors]

    def enlarge(self, sample: Any, shape: tuple[int, int]) -> None:
        """Maps predictions for a reduced image to the original of ``shape`` (height, width), in place."""
        sample.set_metainfo(dict(ori_shape=shape))
