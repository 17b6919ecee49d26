"""The demo's course: draw, then train and test task by task, then report."""

import fcntl
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track

from demos.configs import backbone_file, prepare_config
from demos.own_data import print_own_data, write_own_data_config
from demos.picture import draw_joint_picture, draw_picture
from demos.process import python, run_tool
from demos.report import Result, print_table, write_reports
from demos.tasks import JOINT, NECKS, TASKS, DemoTask, JointTask
from icconv_mm.datasets.miniature import MiniatureOptions, ensure_miniature
from icconv_mm.errors import InputError


@dataclass(frozen=True)
class DemoOptions:
    """What the demo does.

    Attributes:
        home: The folder that holds ``configs/`` and ``tools/``.
        work_dir: Takes configs, logs, checkpoints, predictions and the report.
        data: The miniature dataset; drawn if it is missing.
        tasks: Names of the tasks, in the order they run; 'joint' is one network for all.
        backbone: A file of ``configs/_base_/backbones``, without ``.py``.
        neck: A key of ``NECKS``, whose task runs after the others; None for none.
        device: 'cpu' or 'cuda'.
        seed: Seed of every training.
        drawing: Options of the dataset that is drawn.
    """

    home: Path
    work_dir: Path = Path('work_dirs/demo')
    data: Path = Path('data/miniature')
    tasks: Sequence[str] = tuple(task.name for task in TASKS)
    backbone: str = 'ic_resnet18'
    neck: str | None = None
    device: str = 'cpu'
    seed: int = 0
    drawing: MiniatureOptions = field(default_factory=MiniatureOptions)


def run_demo(options: DemoOptions, console: Console | None = None) -> list[Result]:
    """Train and test the tasks, print the table, and write ``report.json``, ``report.md`` and ``demo.jpg``.

    Args:
        options: Options of the demo.
        console: Console to print on.

    Returns:
        One result per test; the demo has passed if every one has.

    Raises:
        InputError: A task, backbone, neck or device does not exist.
        ToolError: A training or test ended with an error.
    """
    console = console or Console()
    home, work_dir = options.home, options.work_dir
    tasks = _chosen('--tasks: no task', options.tasks, {task.name: task for task in (*TASKS, JOINT)})
    if options.neck is not None:
        tasks += _chosen('--neck: no neck', [options.neck], NECKS)
    backbone = backbone_file(home, options.backbone)
    _require_device(options.device)
    ensure_miniature(options.data, options.drawing, lambda pairs: track(pairs, 'drawing the dataset', console=console))
    console.print(f'backbone of every task: {backbone.relative_to(home)}')
    with _alone_in(work_dir):
        return _run_tasks(options, tasks, backbone, console)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Raise InputError if another demo is running in the folder: each would delete what the other has trained."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends, however it ends
        except BlockingIOError:
            raise InputError(f'{folder}: another demo is running in this folder; choose another --work-dir') from None
        yield


def _run_tasks(options: DemoOptions, tasks: Sequence[DemoTask], backbone: Path, console: Console) -> list[Result]:
    home, work_dir = options.home, options.work_dir
    results, trained = [], {}
    for number, task in enumerate(tasks, 1):
        start_from = trained.get(task.starts_from)
        results += _run_task(task, options, backbone, start_from, console, f'{number}/{len(tasks)}')
        trained[task.name] = _checkpoint(work_dir / task.name)
        write_reports(results, work_dir)
    picture = work_dir / 'demo.jpg'
    separate = {task: work_dir / task.name / task.kind.written for task in tasks if task is not JOINT}
    if JOINT in tasks:
        draw_joint_picture(work_dir / JOINT.name, options.data, work_dir / 'joint.jpg' if separate else picture)
    if separate:
        draw_picture(separate, options.data, picture)
    write_reports(results, work_dir, picture)
    print_table(results, console)
    console.print(f'report: {work_dir}/report.md, report.json, {picture.name}')
    print_own_data(home, write_own_data_config(home, work_dir), console)
    return results


def _checkpoint(folder: Path) -> Path:
    """What the training of a task has left."""
    return Path((folder / 'train/last_checkpoint').read_text().strip())


def _run_task(
    task: DemoTask | JointTask,
    options: DemoOptions,
    backbone: Path,
    start_from: Path | None,
    console: Console,
    number: str,
) -> list[Result]:
    """Train a task and test it, once more for each of its retests; the first results count the training's seconds."""
    start = time.monotonic()
    home, folder = options.home, options.work_dir / task.name
    if (folder / 'config.py').is_file():  # of an earlier demo, whose results must not pass for this one's
        shutil.rmtree(folder)
    config = prepare_config(
        task, folder, home=home, backbone=backbone, data=options.data, seed=options.seed, start=start_from
    )
    env = {'CUDA_VISIBLE_DEVICES': ''} if options.device == 'cpu' else {}
    train = python(home / 'tools/train.py', config, '--work-dir', folder / 'train')
    run_tool(train, folder / 'train.log', f'{number} {task.title}: train', console, env)
    checkpoint = _checkpoint(folder)
    results = []
    for i, (addition, changes) in enumerate((('', ()), *task.retests)):
        title, work_dir = task.title + addition, folder / ('test' if i == 0 else f'retest{i}')
        judged = task.judged if i == 0 else task.judged[-1:]
        if changes:  # which the others do not depend on
            place = 'test_evaluator.2.metric' if task is JOINT else 'test_evaluator'  # boxes and masks, maps, joints
            keep = f'{place}.{judged[0].kind.option}=None'  # the predictions of the first test
            changes = ('--cfg-options', *changes, keep)
        test = python(home / 'tools/test.py', config, checkpoint, '--work-dir', work_dir, *changes)
        run_tool(test, work_dir.with_suffix('.log'), f'{number} {title}: test', console, env)
        seconds = round(time.monotonic() - start, 1)
        results += [
            Result(
                task=each.title + addition,
                config=f'configs/{task.config}',
                backbone_file=str(backbone.relative_to(home)),
                metric=each.kind.metric,
                value=round(each.kind.scale * read_metric(work_dir, each.key), 4),
                threshold=each.threshold if i == 0 else None,
                seconds=seconds,
                backbone_from=task.starts_from if start_from else None,
            )
            for each in judged
        ]
        start = time.monotonic()
    return results


def read_metric(folder: Path, key: str) -> float:
    """A metric of the latest test below ``folder``; 0 without one, as mmdet gives none if nothing is detected."""
    files = sorted(folder.glob('*/*.json'), key=lambda file: file.stat().st_mtime)
    metrics = json.loads(files[-1].read_text()) if files else {}
    value = float(metrics.get(key, 0.0))
    return value if math.isfinite(value) else 0.0


def _chosen(refusal: str, names: Sequence[str], known: Mapping[str, DemoTask | JointTask]) -> list:
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InputError(f'{refusal} {", ".join(unknown) or "given"}; there are: {", ".join(known)}')
    return [known[name] for name in dict.fromkeys(names)]


def _require_device(device: str) -> None:
    import torch

    if device == 'cuda' and not torch.cuda.is_available():
        raise InputError('--device cuda: torch finds no CUDA device; use --device cpu')
