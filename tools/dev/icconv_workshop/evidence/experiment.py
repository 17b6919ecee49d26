"""All runs of some comparisons: which are left, in which order, and workers that do them."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from icconv_mm.app.commands.command_line import require_device
from icconv_mm.arguments import require_known
from icconv_mm.errors import InputError
from icconv_mm.files import alone_in
from icconv_tools.processes import Children, Ended
from icconv_workshop.evidence.arms import ARMS, RATE_KEY, Arm
from icconv_workshop.evidence.comparisons import COMPARISONS, groups_of
from icconv_workshop.evidence.real import REAL
from icconv_workshop.evidence.runs import BUDGETS, Budget, Run

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
        comparisons: Names of comparisons; by default all whose images are there or can be drawn.

    Raises:
        InputError: There is no such comparison, or no seed.
    """

    def __init__(self, root: Path, budget: Budget, seeds: Sequence[int], comparisons: Sequence[str] | None = None):
        self.root, self.budget = root.absolute() / budget.name, budget  # runs of two budgets do not mix
        comparisons = comparisons or [name for name in COMPARISONS if self._has_images(name)]
        names = require_known(comparisons, COMPARISONS, '--comparisons: no comparison')
        if not seeds:
            raise InputError('--seeds: at least one is needed')
        self.seeds = tuple(dict.fromkeys(seeds))
        self.comparisons = [COMPARISONS[name] for name in names]
        self.console = Console()

    def _has_images(self, comparison: str) -> bool:
        """Whether its set is drawn, or has been cloned."""
        data = ARMS[COMPARISONS[comparison].rows[0].arm].data
        return data not in REAL or REAL[data].clone(self.root).is_dir()

    def runs(self) -> list[Run]:
        """What is compared comes first, seed by seed, so that an interrupted one has whole pairs."""
        groups = groups_of(self.comparisons)
        keys = dict.fromkeys((arm.name, seed) for group in groups for seed in self.seeds for arm in group)
        return [self.run_of(*key) for key in keys]

    def run_of(self, arm: str, seed: int) -> Run:
        """A run by the name of its arm, with ``@RATE`` or ``@xLENGTH`` behind it for a trial.

        Raises:
            InputError: There is no such arm.
        """
        name, *trials = arm.split('@')
        require_known([name], ARMS, 'no arm')
        return Run(trial_of(ARMS[name], trials), seed, self.budget, self.root)

    def run_one(self, arm: str, seed: str) -> None:
        """One run in this process."""
        from icconv_workshop.evidence.training import perform

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
            self.console.out(f'{len(left)} runs are left', highlight=False)
            under_way: dict[str, Future] = {}
            failures = 0
            with ThreadPoolExecutor(workers) as pool, Children() as children:
                try:
                    for run in left:  # a supernet comes before what needs it, which then waits for its end
                        before = under_way.get(run.needs.name) if run.needs else None
                        under_way[run.name] = pool.submit(_process, run, command, children, before)
                    names = {future: name for name, future in under_way.items()}
                    for number, future in enumerate(as_completed(names), 1):
                        failures += future.result().status != 0
                        text = f'{number}/{len(left)} {names[future]}: {str(future.result())[:200]}'
                        self.console.out(f'{text}, {future.result().seconds:.0f} s', highlight=False)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)  # no other begins
                    raise
        return not failures


def trial_of(arm: Arm, trials: Sequence[str]) -> Arm:
    """An arm at another learning rate (``2e-3``), or for longer (``x4``)."""
    for text in trials:
        try:
            number = float(text.removeprefix('x'))
        except ValueError:
            raise InputError(f'--run: expected {arm.name}@RATE or {arm.name}@xLENGTH, got {text!r}') from None
        change = dict(length=number) if text.startswith('x') else dict(changes={**arm.changes, RATE_KEY: number})
        arm = replace(arm, name=f'{arm.name}@{text}', **change)
    return arm


def finished(run: Run) -> bool:
    """Whether there is a result of it, with the settings of now."""
    return (run.needs is None or finished(run.needs)) and run.result() is not None


def _process(run: Run, command: Sequence[str], children: Children, before: Future[Ended] | None) -> Ended:
    """A run in a process of its own; not where the one that it needs has failed. A failed one leaves its output."""
    if before is not None and before.result().status != 0:
        return Ended(1, f'{run.needs.name} has failed', 0.0)
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / FAILED).unlink(missing_ok=True)
    ended = children.run([*command, run.arm.name, str(run.seed)], log := run.folder / _LOG)
    if ended.status == 0:
        log.unlink()
        return ended
    log.rename(run.folder / FAILED)
    return ended._replace(last=f'{ended.last}; see {run.folder / FAILED}')
