"""How much is drawn and trained, and the config of a run."""

import copy
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from icconv_mm.apis import load_config
from icconv_mm.app.runs.config import move_data
from icconv_mm.app.runs.lengths import set_length
from icconv_mm.config_tree import walk_dicts
from icconv_mm.errors import InputError
from icconv_mm.patterns import read_patterns
from icconv_tools.recorded_runs import digest, find_result
from icconv_workshop.evidence.arms import ARMS, DATA, PATTERN_KEY, RATE_KEY, Arm
from icconv_workshop.evidence.real import REAL, config_file, labels_digest
from icconv_workshop.evidence.scales import CLASSES, ScalesOptions

CONFIGS = Path(__file__).resolve().parent / 'configs'
# of each config, before the factors of arm and budget
ITERATIONS = {
    'classification': 300,
    'all': 600,
    'mask_rcnn': 600,
    'pose': 800,
    'pose_pyramid': 600,
    'pspnet': 300,
    'retinanet': 400,
    'semantic_fpn': 600,
    'sepc': 800,
}
# of each real set and task, before these factors
EPOCHS = {
    ('camvid', 'semantic'): 6,
    ('bccd', 'detection'): 6,
    ('camvid192', 'semantic'): 4,
    ('bccd192', 'detection'): 6,
    ('nuclei', 'instance'): 6,
    ('nuclei', 'all'): 6,
}
TUNING = 1000  # seeds from here on are of trials, which are tested on the split for validation
_VAL = re.compile(r'(?:^|(?<=[/_]))val(?=/?$|\.json$)')  # in the names of folders and annotation files
_COCO = {'bbox': 'results.bbox.json', 'segm': 'results.segm.json', 'keypoints': 'results.keypoints.json'}


@dataclass(frozen=True)
class Budget:
    """What a run may cost.

    Attributes:
        name: What ``--budget`` calls it.
        train, val, test: Images of each split.
        length: Factor of the iterations of every config.
        iterations: The iterations of every run, instead.
    """

    name: str
    train: int = 400
    val: int = 100
    test: int = 200
    length: float = 1.0
    iterations: int | None = None

    def drawing(self, data: str) -> ScalesOptions:
        """What is drawn for a key of ``DATA``."""
        return ScalesOptions(self.train, self.val, test=self.test, distances=DATA[data])


BUDGETS = {
    budget.name: budget
    for budget in (
        Budget('cpu'),
        Budget('gpu', train=4000, val=400, test=1000, length=8.0),
        Budget('quick', train=8, val=2, test=2, iterations=2),
    )
}


@dataclass(frozen=True)
class Run:
    """An arm with a seed under a budget, in a folder of its own.

    Attributes:
        arm: The arm.
        seed: Seed of the weights and of the order of the images.
        budget: The budget.
        root: The folder of all runs and of the data.
    """

    arm: Arm
    seed: int
    budget: Budget
    root: Path

    @property
    def name(self) -> str:
        """As the reports call it."""
        return f'{self.arm.name}/seed{self.seed}'

    @property
    def folder(self) -> Path:
        """Its result, weights and logs."""
        return self.root / 'runs' / self.name

    @property
    def data(self) -> Path:
        """Its dataset, if it is a drawn one."""
        return self.root / 'data' / self.arm.data

    def truth(self, kind: str) -> Path:
        """The COCO file of what it is tested on: of ``'bbox'``, ``'segm'`` or ``'keypoints'``."""
        metrics = [node for node in walk_dicts(self.config().test_evaluator) if 'CocoMetric' in node.get('type', '')]
        return Path(next(metric.ann_file for metric in metrics if kind in metric.get('metric', 'keypoints')))

    @property
    def result_file(self) -> Path:
        return self.folder / 'result.json'

    @property
    def weights(self) -> Path:
        return self.folder / 'weights.pth'

    def pattern_file(self, align: int | None = None) -> Path:
        """What a supernet has found, in blocks of ``align`` channels."""
        return self.folder / ('pattern.json' if align is None else f'pattern_{align}.json')

    @property
    def needs(self) -> 'Run | None':
        """The run that must come before."""
        name = self.arm.pattern_of
        return None if name is None else Run(ARMS[name], self.seed, self.budget, self.root)

    @property
    def is_real(self) -> bool:
        """Whether its images are of a public set, not drawn."""
        return self.arm.data in REAL

    @property
    def split(self) -> str:
        """What it is tested on."""
        return 'val' if self.seed >= TUNING else 'test'

    def settings(self) -> str:
        """A digest of all that was set: a result with another one is not of this run."""
        tests = json.dumps({name: dict(change) for name, change in self.arm.tests.items()}, sort_keys=True)
        if self.is_real:
            data = labels_digest(self.root, self.arm.data, self.arm.base)
        else:
            data = repr(self.budget.drawing(self.arm.data))
        return digest(self.config(), self.root, data, tests)

    def result(self) -> dict | None:
        """What the finished run found, or None."""
        return find_result(self.result_file, self.settings())

    def config(self, test: str = '') -> Config:
        """The config that trains it and makes one of its tests."""
        cfg = self._real_config() if self.is_real else self._drawn_config()
        cfg.work_dir = str(self.folder)
        cfg.merge_from_dict({RATE_KEY: self.arm.rate, **copy.deepcopy(dict(self.arm.changes))})
        if (source := self.needs) is not None:
            if not (file := source.pattern_file(self.arm.align)).is_file():
                raise InputError(f'{self.name}: no pattern yet, {source.name} comes first: {file}')
            cfg.merge_from_dict({PATTERN_KEY: [pattern.to_json() for pattern in read_patterns(file)]})
        self._set_length(cfg)
        cfg.randomness = {'seed': self.seed}
        for name in ('val_dataloader', 'val_evaluator', 'val_cfg'):  # tested once, after the training
            cfg[name] = None
        cfg.default_hooks.checkpoint = None
        for node in list(walk_dicts(cfg.test_evaluator)):
            if 'CocoMetric' in node.get('type', ''):  # it writes; AP by size is computed from that
                node.update(format_only=True, outfile_prefix=str(self.folder / 'results'))
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            loader.num_workers, loader.persistent_workers = 0, False
        if 'search' in cfg.model.backbone:
            search = dict(cfg.model.backbone.search, step=0, max_step=cfg.train_cfg.max_epochs, search_interval=1)
            hook = dict(type='mmengine.RFSearchHook', mode='search', config=dict(search=search), verbose=False)
            cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]
        if test:
            cfg.merge_from_dict(copy.deepcopy(dict(self.arm.tests[test])))
        return cfg

    def _set_length(self, cfg: Config) -> None:
        length = self.arm.length * self.budget.length
        if self.is_real:
            epochs = 1 if self.budget.iterations else max(1, round(length * EPOCHS[self.arm.data, self.arm.base]))
            set_length(cfg, epochs=epochs)
            cfg.train_cfg.val_interval = epochs + 1
        else:
            set_length(cfg, iters=self.budget.iterations or round(length * ITERATIONS[self.arm.base]))
            cfg.train_cfg.val_interval = cfg.train_cfg.max_iters + 1

    def _real_config(self) -> Config:
        """That of a user's data; with another network where the arm has one, or with one of its tasks alone."""
        cfg = copy.deepcopy(_base(config_file(self.root, self.arm.data, self.arm.base)))
        if self.arm.model is not None:
            written, cfg.model = cfg.model, copy.deepcopy(_base(_file(self.arm.model)).model)
            cfg.model.data_preprocessor = written.data_preprocessor
            if 'decode_head' in written:  # whose losses weigh the classes of the set
                cfg.model.decode_head.loss_decode = losses = written.decode_head.loss_decode
                if (auxiliary := cfg.model.get('auxiliary_head')) is not None:
                    auxiliary.loss_decode = dict(losses[0], loss_weight=auxiliary.loss_decode.loss_weight)
        if self.arm.only is not None:
            keep_task(cfg, self.arm.only)
        if self.split == 'val':
            cfg.test_dataloader, cfg.test_evaluator = (
                copy.deepcopy(cfg.val_dataloader),
                copy.deepcopy(cfg.val_evaluator),
            )
        return cfg

    def _drawn_config(self) -> Config:
        """The drawn set of scales in the place of the miniature one, and its split."""
        cfg = copy.deepcopy(_base(_file(self.arm.base)))
        cfg.test_dataloader, cfg.test_evaluator = copy.deepcopy(cfg.val_dataloader), copy.deepcopy(cfg.val_evaluator)
        for node in (*walk_dicts(cfg.test_dataloader), *walk_dicts(cfg.test_evaluator)):
            node.update({key: _VAL.sub(self.split, value) for key, value in node.items() if isinstance(value, str)})
        move_data(cfg, f'{self.data}/')
        for node in walk_dicts(cfg):
            if 'classes' in (node.get('metainfo') or {}):
                background = ('background',) * (node.metainfo.classes[0] == 'background')
                node.metainfo = dict(classes=(*background, *CLASSES))
        return cfg

    @property
    def results(self) -> dict[str, Path]:
        """What the metrics of COCO have written, by its name of the kind."""
        return {kind: path for kind, name in _COCO.items() if (path := self.folder / name).is_file()}


def keep_task(cfg: Config, task: str) -> None:
    """One task of a network for all: its head, labels and figures alone, with the same images and augmentation."""
    cfg.model.tasks = {task: cfg.model.tasks[task]}
    cfg.model.loss_weights = {task: 1.0}
    for node in walk_dicts([cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader]):
        kind = str(node.get('type', '')).rpartition('.')[2]
        if kind in ('LoadTaskAnnotations', 'PackTaskInputs'):
            for other in [key for key, value in node.items() if key != task and isinstance(value, (dict, list))]:
                del node[other]
        elif kind == 'MultiTaskDataset':
            node.datasets = {task: node.datasets[task]}
    for name in ('val_evaluator', 'test_evaluator'):
        cfg[name] = [part for part in cfg[name] if part.task == task]


def _file(name: str) -> Path:
    return CONFIGS / f'{name}.py'


@functools.cache
def _base(file: Path) -> Config:
    return load_config(str(file))
