"""All runs of some comparisons: which are left, in which order, and workers that do them."""

import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from rich.console import Console

from icconv_mm.errors import InputError, require_known
from icconv_mm.utils.command_line import require_device
from icconv_mm.utils.files import alone_in
from icconv_tools.evidence.comparisons import COMPARISONS, arm_named, groups_of, tuning_arms
from icconv_tools.evidence.runs import BUDGETS, TUNING, Budget, Run
from icconv_tools.processes import Children, Ended

FAILED, _LOG = 'failed.log', 'output.log'  # in the folder of a run: what it said, if it failed and while it runs


def use_device(name: str) -> None:
    """Let torch see a GPU, or not.

    Raises:
        InputError: A GPU was asked for, and there is none.
    """
    if name == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    require_device(name)


def budget_of(name: str | None) -> Budget:
    """A budget by name; by default that of the device.

    Raises:
        InputError: There is no such budget.
    """
    import torch

    name = name or ('gpu' if torch.cuda.is_available() else 'cpu')
    require_known([name], BUDGETS, '--budget: no budget')
    return BUDGETS[name]


class Experiment:
    """All runs of some comparisons.

    Args:
        root: Folder below which, by the budget's name, are data, runs and report.
        budget: What a run may cost.
        seeds: Seeds of every arm.
        comparisons: Names of comparisons; all by default.
        tune: Whether to run their baselines at several learning rates instead.

    Raises:
        InputError: There is no such comparison, or no seed.
    """

    def __init__(
        self,
        root: Path,
        budget: Budget,
        seeds: Sequence[int],
        comparisons: Sequence[str] | None = None,
        tune: bool = False,
    ):
        names = require_known(comparisons or COMPARISONS, COMPARISONS, '--comparisons: no comparison')
        if not seeds:
            raise InputError('--seeds: at least one is needed')
        self.root, self.budget = root.absolute() / budget.name, budget  # runs of two budgets do not mix
        self.seeds = tuple(dict.fromkeys(seeds))
        if tune and (seen := [seed for seed in self.seeds if seed < TUNING]):
            raise InputError(f'--seeds: --tune takes seeds from {TUNING} on, got {", ".join(map(str, seen))}')
        self.tune = tune
        self.comparisons = [COMPARISONS[name] for name in names]
        self.console = Console()

    def runs(self) -> list[Run]:
        """What is compared comes first, seed by seed, so that an interrupted one has whole pairs."""
        names = [comparison.name for comparison in self.comparisons]
        groups = [tuning_arms(names)] if self.tune else groups_of(self.comparisons)
        keys = dict.fromkeys((arm.name, seed) for group in groups for seed in self.seeds for arm in group)
        return [self.run_of(*key) for key in keys]

    def run_of(self, arm: str, seed: int) -> Run:
        """A run by name.

        Raises:
            InputError: There is no such arm.
        """
        return Run(arm_named(arm), seed, self.budget, self.root)

    def run_one(self, arm: str, seed: str) -> None:
        """One run in this process."""
        from icconv_tools.evidence.training import perform

        if not seed.isdigit():
            raise InputError(f'--run: expected a seed, got {seed!r}')
        run = self.run_of(arm, int(seed))
        with alone_in(run.folder, 'evidence is at work'):  # what was killed may have left its worker
            perform(run)

    def print_state(self) -> None:
        """Which runs are done."""
        for run in self.runs():
            failed = (run.folder / FAILED).is_file()
            state = 'done' if finished(run) else 'failed' if failed else 'left'
            self.console.out(f'{state:7}{run.name}', highlight=False)

    def run_all(self, command: Sequence[str], workers: int) -> bool:
        """Do what is left.

        Args:
            command: Starts a run in a process of its own; the arm and the seed are appended.
            workers: Processes at once.

        Returns:
            Whether all runs are done; those that failed left a log.

        Raises:
            InputError: Another one is at work in this folder.
        """
        with alone_in(self.root, 'evidence is at work'):
            left = [run for run in self.runs() if not finished(run)]
            progress = Progress(self.console, len(left), workers)
            failed: set[str] = set()
            with ThreadPoolExecutor(workers) as pool, Children() as children:
                under_way: dict[Future, Run] = {}
                while left or under_way:
                    for run in list(left):
                        if len(under_way) == workers:
                            break
                        if (source := run.needs) is not None and not finished(source):
                            if source.name in failed or source not in [*left, *under_way.values()]:
                                left.remove(run)
                                failed.add(run.name)
                                progress.ended(run, 0, f'{source.name} has failed')
                            continue
                        left.remove(run)
                        under_way[pool.submit(_process, run, command, children)] = run
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        run, ended = under_way.pop(future), future.result()
                        failure = _failure(run, ended)  # here, as mmengine reads configs in one thread at a time
                        progress.ended(run, ended.seconds, failure)
                        if failure is not None:
                            failed.add(run.name)
        return not failed


def finished(run: Run) -> bool:
    """Whether there is a result of it, with the settings of now."""
    return (run.needs is None or finished(run.needs)) and run.result() is not None


class Progress:
    """A line for every run that ends, with the time that is left."""

    def __init__(self, console: Console, total: int, workers: int):
        self._console, self._total, self._workers = console, total, workers
        self._seconds: list[float] = []
        self._ended = 0
        console.out(f'{total} runs are left', highlight=False)

    def ended(self, run: Run, seconds: float, failure: str | None) -> None:
        self._ended += 1
        if failure is None:
            self._seconds.append(seconds)
        text, left = f': {seconds:.0f} s' if failure is None else f' FAILED: {failure}', ''
        if self._seconds:
            seconds = statistics.fmean(self._seconds) * (self._total - self._ended) / self._workers
            left = f', about {seconds / 60:.0f} minutes left'
        now = time.strftime('%H:%M:%S')
        self._console.out(f'{now} {self._ended}/{self._total} {run.name}{text}{left}', highlight=False)


def _process(run: Run, command: Sequence[str], children: Children) -> Ended:
    """A run in a process of its own."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / FAILED).unlink(missing_ok=True)
    return children.run([*command, run.arm.name, str(run.seed)], run.folder / _LOG)


def _failure(run: Run, ended: Ended) -> str | None:
    """None of a run that has its result; else how it ended, and the log that is kept."""
    log, failed = run.folder / _LOG, run.folder / FAILED
    if ended.status == 0 and finished(run):
        log.unlink()
        return None
    log.rename(failed)
    return f'{str(ended)[:200]}; see {failed}'
