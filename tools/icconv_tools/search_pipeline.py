"""The whole dilation search on one config: train the supernet, search, retrain, compare at equal budget.

Every stage leaves its result in the work folder and is not run again while its settings stay the same, so an
interrupted pipeline goes on where it stopped.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import RenderableType
from rich.rule import Rule

from icconv_mm.app.commands.tables import markdown, plain, results_table, table
from icconv_mm.app.runs.begin import TaskRun, begin
from icconv_mm.app.runs.lengths import set_length
from icconv_mm.app.training.search import search_checkpoint
from icconv_mm.arguments import require_known
from icconv_mm.errors import InputError
from icconv_mm.files import write_json
from icconv_mm.patterns import read_patterns
from icconv_tools.recorded_runs import digest, find_result, train_once

# What a network is evaluated by, by the library of its config.
METRICS = dict(mmdet='coco/bbox_mAP', mmseg='mIoU', mmpose='coco/AP', mmpretrain='accuracy/top1')
VARIANTS = ('dense', 'analytic', 'searched', 'inherited')  # networks that a search is compared with, and its own


@dataclass(frozen=True)
class Stage:
    """One training: its folder, and the config that says everything about it."""

    folder: Path
    config: Config

    @property
    def result_file(self) -> Path:
        return self.folder / 'result.json'

    @property
    def weights(self) -> Path:
        return self.folder / 'weights.pth'

    def settings(self) -> str:
        """A digest of the config; a result with another one is not of this stage."""
        return digest(self.config, self.folder)

    def result(self) -> dict | None:
        """What the finished stage measured, or None."""
        return find_result(self.result_file, self.settings())


class SearchPipeline:
    """Supernet, search and comparison on one config.

    Args:
        cfg: Run or config of a supernet, or its file: ``model.backbone.supernet_d_max`` and a schedule in iterations.
        work_dir: Folder where everything is written.
        seeds: Seeds of the comparison. The supernet takes the first one.
        iters: The length of every training, instead of the config's; learning rates follow.
        variants: Networks to compare: ``'dense'``, ``'analytic'`` (geometric_dN), ``'searched'`` (from scratch) and
            ``'inherited'`` (the searched pattern, which starts from the taps that it keeps of the trained supernet).
        criterion: Criterion of the search, one of ``icconv_mm.patterns.search.CRITERIA``.
        align: Channels in a block, of which the searched pattern has multiples; None for any numbers.
        metric: The metric to compare, as the config's evaluator names it; by default the usual one of its task.
        show: Is given headings and tables as they come, as objects that rich can print; by default they are not shown.

    Raises:
        InputError: The config is not that of a supernet with a schedule in iterations, or a variant is unknown.
    """

    def __init__(
        self,
        cfg: TaskRun | Config | str | Path,
        work_dir: str | Path,
        *,
        seeds: Sequence[int] = (0, 1, 2),
        iters: int | None = None,
        variants: Sequence[str] = VARIANTS[:3],
        criterion: str = 'rms',
        align: int | None = None,
        metric: str | None = None,
        show: Callable[[RenderableType], None] = lambda shown: None,
    ):
        run = begin(cfg)
        cfg = run.cfg
        self.d_max = cfg.model.backbone.get('supernet_d_max')
        if not self.d_max:
            raise InputError(f'{run.name}: model.backbone.supernet_d_max is not set: there is nothing to search')
        variants = require_known(variants, VARIANTS, 'no variant')
        if not seeds:
            raise InputError('at least one seed is needed')
        self.config = copy.deepcopy(cfg)
        set_length(self.config, iters=cfg.train_cfg.get('max_iters', 1) if iters is None else iters)
        self.work_dir = Path(work_dir)
        self.pattern_file = self.work_dir / 'pattern.json'  # channels sorted by dilation
        # the initial checkpoint of the searched network; its pattern lies beside it
        self.inherited_file = self.work_dir / 'inherited.pth'
        self.seeds, self.variants, self.criterion = tuple(seeds), tuple(variants), criterion
        self.align = align
        self.metric = metric or METRICS.get(run.scope, 'mIoU')
        self.show = show

    def run(self, limit: int | None = None) -> dict | None:
        """Runs what is left, at most ``limit`` trainings.

        Returns:
            The report (see :meth:`report`), or None while trainings are left.
        """
        started = 0
        for number, stage in enumerate(self.stages(), 1):
            total = 1 + len(self.variants) * len(self.seeds)
            done = stage.result() is not None
            if not done and limit is not None and started >= limit:
                return None
            note = ' (finished before)' if done else ''
            self.show(Rule(plain(f'training {number} of {total}: {stage.folder.name}{note}')))
            if not done:
                run_stage(stage)
                started += 1
            self._value(stage.result())
        return self.report()

    def stages(self) -> Iterator[Stage]:
        """The trainings in order. The search runs after the first, when the second is asked for."""
        supernet = self._stage('supernet', self.seeds[0])
        yield supernet
        self._search(supernet)
        for seed in self.seeds:
            for variant in self.variants:
                yield self._stage(variant, seed)

    def _stage(self, variant: str, seed: int) -> Stage:
        folder = self.work_dir / (variant if variant == 'supernet' else f'{variant}_seed{seed}')
        start = self.inherited_file if variant == 'inherited' else None
        pattern = self._pattern(variant)
        return Stage(folder, comparison_config(self.config, folder, seed=seed, pattern=pattern, start=start))

    def _pattern(self, variant: str) -> str | list | None:
        files = {'searched': self.pattern_file, 'inherited': self.inherited_file.with_suffix('.json')}
        if variant in files:
            return [pattern.to_json() for pattern in read_patterns(files[variant])]
        return {'supernet': None, 'dense': 'dense', 'analytic': f'geometric_d{self.d_max}'}[variant]

    def _search(self, supernet: Stage) -> None:
        searched = search_checkpoint(supernet.weights, self.d_max, criterion=self.criterion, align=self.align)
        searched.write(self.inherited_file.with_suffix('.json'), self.inherited_file)
        searched.write(self.pattern_file)
        self.show(results_table(searched.results))

    def report(self) -> dict:
        """Writes report.json and report.md, shows the table and returns what report.json holds."""
        rows = [self._row(variant) for variant in self.variants]
        supernet = self._stage('supernet', self.seeds[0]).result()
        report = {
            'config': Path(self.config.filename).name,
            'metric': self.metric,
            'iterations': self.config.train_cfg.max_iters,
            'seeds': list(self.seeds),
            'criterion': self.criterion,
            'supernet': {'value': self._value(supernet), 'seconds': supernet['seconds']},
            'rows': rows,
        }
        write_json(self.work_dir / 'report.json', report, indent=1)
        cells = _cells(report)
        (self.work_dir / 'report.md').write_text(markdown(cells))
        title = f'{report["metric"]} after {report["iterations"]} iterations'
        self.show(table(title, cells, {'pattern'}))
        return report

    def _value(self, result: dict) -> float:
        metrics = result['metrics']
        if self.metric not in metrics:
            given = ', '.join(metrics) or 'none'
            raise InputError(f'{self.config.filename}: no metric {self.metric!r}; the evaluator gives {given}')
        return metrics[self.metric]

    def _row(self, variant: str) -> dict:
        results = [self._stage(variant, seed).result() for seed in self.seeds]
        values = [self._value(result) for result in results]
        return {
            'variant': variant,
            'values': values,
            'mean': statistics.fmean(values),
            'std': statistics.stdev(values) if len(values) > 1 else 0.0,
            'seconds': statistics.fmean(result['seconds'] for result in results),
        }


def comparison_config(
    cfg: Config, work_dir: Path, *, seed: int, pattern: Any = None, start: Path | None = None
) -> Config:
    """A copy of a supernet's config for one of the trainings that the search compares.

    It trains with ``pattern`` in the place of the supernet, and from the checkpoint ``start``, where they are given.
    """
    cfg = copy.deepcopy(cfg)
    if pattern is not None:
        cfg.model.backbone.pop('supernet_d_max')
        cfg.model.backbone.pattern = pattern
    if start is not None:
        cfg.load_from = str(start)
    cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}
    cfg.train_cfg.val_interval = cfg.train_cfg.max_iters  # evaluated and saved once, at the end
    cfg.default_hooks.checkpoint = None
    cfg.work_dir = str(work_dir)
    return cfg


def run_stage(stage: Stage) -> None:
    """Trains and evaluates one stage and records metrics, seconds and weights in its folder."""
    config = copy.deepcopy(stage.config)
    config.experiment_name = f'{stage.folder.name}_{time.time_ns()}'  # runners of one process must not share their logs
    runner, seconds = train_once(config, stage.weights)
    logs = runner.message_hub.log_scalars  # of the evaluation that ends a training
    metrics = {key.removeprefix('val/'): log.current() for key, log in logs.items() if key.startswith('val/')}
    result = {'settings': stage.settings(), 'metrics': metrics, 'seconds': seconds}
    write_json(stage.result_file, result, indent=1)


def _cells(report: dict) -> list[list[str]]:
    """What the tables show, titles first."""
    rows = [['pattern', *(f'seed {seed}' for seed in report['seeds']), 'mean', 'std', 'seconds']]
    for row in report['rows']:
        numbers = (f'{value:.2f}' for value in (*row['values'], row['mean'], row['std']))
        rows.append([row['variant'], *numbers, f'{row["seconds"]:.0f}'])
    return rows
