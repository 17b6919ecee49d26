"""How much is drawn and trained, and the config of a run."""

import copy
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from icconv_mm.apis import load_config
from icconv_mm.apis.config import move_data, set_iterations
from icconv_mm.apis.recorded_runs import digest, find_result
from icconv_mm.datasets.miniature.scales import CLASSES, ScalesOptions
from icconv_mm.errors import InputError
from icconv_mm.patterns import read_patterns
from icconv_mm.utils.config_tree import as_list, dicts_in
from icconv_tools.evidence.arms import ARMS, DATA, PATTERN_KEY, RATE_KEY, Arm

CONFIGS = Path(__file__).resolve().parent / 'configs'
_VAL = re.compile(r'(?:^|(?<=[/_]))val(?=/?$|\.json$)')  # in the names of folders and annotation files
TUNING = 1000  # seeds from here on, and the validation split, are for the choice of hyper-parameters
_COCO = {'bbox': 'results.bbox.json', 'segm': 'results.segm.json', 'keypoints': 'results.keypoints.json'}

# types as they are called now -> as they were when the runs of docs/measurements/evidence were recorded
_RENAMED = {
    'icconv_mm.MultiScaleDataPreprocessor': 'icconv_mm.PyramidDataPreprocessor',
    'icconv_mm.MultiScaleResize': 'icconv_mm.PyramidResize',
    'icconv_mm.PackMultiScaleInputs': 'icconv_mm.PackPyramidInputs',
}


@dataclass(frozen=True)
class Budget:
    """What a run may cost.

    Attributes:
        name: What ``--budget`` calls it.
        train, val, test: Images of each split.
        size: Width and height of an image; what is planted in pixels is in proportion to 128.
        length: Factor of the iterations of every config.
        iterations: The iterations of every run, instead.
    """

    name: str
    train: int = 400
    val: int = 100
    test: int = 200
    size: int = 128
    length: float = 1.0
    iterations: int | None = None

    def drawing(self, data: str) -> ScalesOptions:
        """What is drawn for a key of ``DATA``."""
        distances = tuple(each * self.size // 128 for each in DATA[data])
        return ScalesOptions(self.train, self.val, self.size, test=self.test, distances=distances)


BUDGETS = {
    budget.name: budget
    for budget in (
        Budget('cpu'),
        Budget('gpu', train=4000, val=400, test=1000, length=8.0),
        Budget('quick', train=8, val=2, test=2, size=96, iterations=2),
    )
}


@dataclass(frozen=True)
class Run:
    """An arm with a seed under a budget, in a folder of its own.

    Attributes:
        arm: The arm.
        seed: Seed of the weights and of the order of the images. From 1000 on a run is for choosing
            hyper-parameters, and is tested on the validation split.
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
        """Its dataset."""
        return self.root / 'data' / self.arm.data

    @property
    def result_file(self) -> Path:
        return self.folder / 'result.json'

    @property
    def weights(self) -> Path:
        return self.folder / 'weights.pth'

    @property
    def pattern_file(self) -> Path:
        """What a supernet has found."""
        return self.folder / 'pattern.json'

    @property
    def split(self) -> str:
        """What it is tested on."""
        return 'val' if self.seed >= TUNING else 'test'

    @property
    def needs(self) -> 'Run | None':
        """The run that must come before."""
        name = self.arm.pattern_of
        return None if name is None else Run(ARMS[name], self.seed, self.budget, self.root)

    def settings(self) -> str:
        """A digest of all that was set: a result with another one is not of this run."""
        tests = json.dumps({name: dict(change) for name, change in self.arm.tests.items()}, sort_keys=True)
        drawing = repr(self.budget.drawing(self.arm.data))
        return digest(self.config(), self.root, drawing, tests, renamed=_RENAMED)

    def result(self) -> dict | None:
        """What the finished run found, or None."""
        return find_result(self.result_file, self.settings())

    def config(self, test: str = '') -> Config:
        """The config that trains it and makes one of its tests."""
        cfg = copy.deepcopy(_base(self.arm.base))
        cfg.work_dir = str(self.folder)
        cfg.merge_from_dict({RATE_KEY: self.arm.rate, **copy.deepcopy(dict(self.arm.changes))})
        if (source := self.needs) is not None:
            if not source.pattern_file.is_file():
                raise InputError(f'{self.name}: no pattern yet, {source.name} comes first: {source.pattern_file}')
            cfg.merge_from_dict({PATTERN_KEY: [each.to_json() for each in read_patterns(source.pattern_file)]})
        self._use_data(cfg)
        set_iterations(cfg, self.budget.iterations or round(self.arm.length * self.budget.length * cfg.max_iters))
        cfg.randomness = {'seed': self.seed}
        for name in ('val_dataloader', 'val_evaluator', 'val_cfg'):  # tested once, after the training
            cfg[name] = None
        cfg.train_cfg.val_interval = cfg.train_cfg.max_iters + 1
        cfg.default_hooks.checkpoint = None
        if test:
            cfg.merge_from_dict(copy.deepcopy(dict(self.arm.tests[test])))
        return cfg

    def _use_data(self, cfg: Config) -> None:
        """The drawn set of scales in the place of the miniature one, and its split."""
        cfg.test_dataloader, cfg.test_evaluator = copy.deepcopy(cfg.val_dataloader), copy.deepcopy(cfg.val_evaluator)
        for node in (*dicts_in(cfg.test_dataloader), *dicts_in(cfg.test_evaluator)):
            node.update({key: _VAL.sub(self.split, value) for key, value in node.items() if isinstance(value, str)})
            if 'CocoMetric' in node.get('type', ''):  # it writes; AP by size is computed from that
                node.update(format_only=True, outfile_prefix=str(self.folder / 'results'))
        move_data(cfg, f'{self.data}/')
        for node in dicts_in(cfg):
            if 'classes' in (node.get('metainfo') or {}):
                background = ('background',) * (node.metainfo.classes[0] == 'background')
                node.metainfo = dict(classes=(*background, *CLASSES))
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            loader.num_workers, loader.persistent_workers = 0, False
        if self.budget.size != 128:
            _resize(cfg, self.budget.size)

    @property
    def results(self) -> dict[str, Path]:
        """What the metrics of COCO have written, by its name of the kind."""
        return {kind: path for kind, name in _COCO.items() if (path := self.folder / name).is_file()}


@functools.cache
def _base(name: str) -> Config:
    return load_config(str(CONFIGS / f'{name}.py'))


def _resize(cfg: Config, size: int) -> None:
    """Sizes of images and maps for images of ``size`` instead of 128 pixels."""
    for node in dicts_in(cfg):
        for key in ('scale', 'input_size', 'heatmap_size', 'size'):
            value = node.get(key)
            if isinstance(value, (tuple, list)) and [v for v in as_list(value) if v in (64, 128)]:
                node[key] = tuple(v * size // 128 for v in value)
