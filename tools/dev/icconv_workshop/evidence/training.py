"""One run: train, search if it is a supernet, test, and write what was found."""

import json
import statistics
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import nn

from icconv_mm.apis import test
from icconv_mm.app.training.hooks.checkpoint_checks import unwrapped
from icconv_mm.app.training.search import search_checkpoint
from icconv_mm.files import write_json
from icconv_mm.patterns import write_patterns
from icconv_tools.miniature import ensure_miniature
from icconv_tools.recorded_runs import train_once
from icconv_workshop.evidence.arms import ARMS, D_MAX
from icconv_workshop.evidence.costs import StepTimes, network_costs
from icconv_workshop.evidence.rf_next import RFNextResNet
from icconv_workshop.evidence.runs import Run
from icconv_workshop.evidence.scores import scores_of
from icconv_workshop.origin import origin

_SEARCHED = r'^backbone\.layer\d\.'
KEPT = ('mIoU', 'aAcc', 'accuracy/top1')  # metrics of the libraries, in percent; those of COCO are computed here


def perform(run: Run, threads: int = 1) -> dict:
    """Do a run, unless it is done, and return its result.

    Args:
        run: The run.
        threads: Threads of torch.

    Raises:
        InputError: The supernet whose pattern it takes has not run.
    """
    if (metrics := run.result()) is not None:
        return metrics
    torch.set_num_threads(threads)
    if not run.is_real:
        ensure_miniature(run.data, run.budget.drawing(run.arm.data))
    config = run.config()
    config.custom_hooks = [*(config.get('custom_hooks') or []), dict(type='mmengine.StepTimes')]
    runner, seconds = train_once(config, run.weights)
    loader = runner.build_dataloader(run.config().test_dataloader)
    extra = _search(run, unwrapped(runner.model).backbone) if run.arm.searches else {}
    result = {
        'run': run.name,
        'arm': run.arm.name,
        'seed': run.seed,
        'budget': run.budget.name,
        'settings': run.settings(),
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        **origin('cuda' if torch.cuda.is_available() else 'cpu'),
        'iterations': runner.max_iters,
        'seconds': seconds,
        'seconds_of_step': next(hook.median for hook in runner.hooks if isinstance(hook, StepTimes)),
        'costs': network_costs(unwrapped(runner.model), next(iter(loader))),
        'cosines': _cosines(run.folder),
        'extra_error': extra,
        'tests': {name: _test(run, name) for name in ('', *run.arm.tests)},
    }
    run.weights.unlink()  # hundreds of them would fill a disk
    write_json(run.result_file, result, indent=1)
    return result


def _test(run: Run, name: str) -> dict[str, float]:
    """The scores of one test."""
    for path in run.results.values():
        path.unlink()  # of the test before
    metrics = test(run.config(name), str(run.weights))
    numbers = {key.split('/')[-1]: value for key, value in metrics.items()}
    scores = {key: float(numbers[key.split('/')[-1]]) for key in KEPT if key.split('/')[-1] in numbers}
    return scores | scores_of(run.results, run.truth)


def _search(run: Run, backbone: nn.Module) -> dict[str, dict[str, float]]:
    """Search a supernet, or take what RF-Next has found; the patterns stay in its folder.

    Returns:
        By the block of the patterns that arms take: by how much the error of each layer exceeds the least one.
    """
    if isinstance(backbone, RFNextResNet):
        write_patterns(backbone.patterns(), run.pattern_file())
        return {}
    extra = {}
    for block in dict.fromkeys(arm.align for arm in ARMS.values() if arm.pattern_of == run.arm.name):
        searched = search_checkpoint(run.weights, D_MAX, filter=_SEARCHED, align=block)
        searched.write(run.pattern_file(block))
        if block is not None:
            extra[str(block)] = {result.name: result.extra for result in searched.results}
    return extra


def _cosines(folder: Path) -> dict[str, float]:
    """The mean cosine of the gradients of each pair of tasks over the training, if it was logged."""
    cosines: dict[str, list[float]] = {}
    for file in folder.glob('*/vis_data/scalars.json'):
        for line in file.read_text().splitlines():
            for key, value in json.loads(line).items():
                if key.endswith('.grad_cosine'):
                    cosines.setdefault(key.removesuffix('.grad_cosine'), []).append(value)
    return {key: statistics.fmean(values) for key, values in cosines.items()}
