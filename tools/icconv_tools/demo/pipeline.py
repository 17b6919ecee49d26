"""The demo from its begin to its end: draw, then train and test network by network, then report."""

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from icconv_mm.app.commands import tables
from icconv_mm.app.commands.command_line import require_device
from icconv_mm.arguments import require_known
from icconv_mm.errors import InputError
from icconv_mm.files import alone_in
from icconv_mm.run_folder import last_checkpoint
from icconv_mm.versions import command_of
from icconv_mm_runtime import RuntimeInputError, web
from icconv_tools import HOME
from icconv_tools.demo.configs import backbone_file, prepare_config
from icconv_tools.demo.html_report import WEB, write_page
from icconv_tools.demo.image import draw_image
from icconv_tools.demo.progress import Tool, run_tools
from icconv_tools.demo.report import Result, notes_on_file, print_tables, write_reports
from icconv_tools.demo.tasks import MULTITASK, NECKS, SEPARATE, DemoTask, Kind
from icconv_tools.miniature import MiniatureOptions, ensure_miniature
from icconv_tools.processes import python

_RESULTS = 'results.json'  # in the folder of a network: its rows, and what they hold for


@dataclass(frozen=True)
class DemoOptions:
    """What the demo does.

    Attributes:
        work_dir: Takes configs, logs, checkpoints, predictions and the report.
        data: The miniature dataset; drawn if it is missing.
        tasks: Names of the networks, in the order they run: 'all' is one for all tasks, the others are for one.
        backbone: A file of ``configs/_base_/backbones``, without ``.py``.
        neck: A key of ``NECKS``, whose network runs after the others and the one it starts with; None for none.
        device: 'cpu' or 'cuda'.
        seed: Seed of every training.
        drawing: Options of the dataset that is drawn.
    """

    work_dir: Path = Path('work_dirs/demo')
    data: Path = Path('data/miniature')
    tasks: Sequence[str] = (MULTITASK.name,)
    backbone: str = 'ic_resnet18'
    neck: str | None = None
    device: str = 'cpu'
    seed: int = 0
    drawing: MiniatureOptions = field(default_factory=MiniatureOptions)


def run_demo(options: DemoOptions, console: Console | None = None) -> list[Result]:
    """Train and test the networks, print the table, and write ``report.html``, ``.json``, ``.md`` and ``demo.jpg``.

    Networks that an earlier call has tested in the same folder with the same backbone, data, device and seed are in the
    tables and the image as well.

    Args:
        options: Options of the demo.
        console: Console to print on.

    Returns:
        One result per test of this call; the demo has passed if every one has.

    Raises:
        InputError: A task, backbone, neck or device does not exist.
        ToolError: A training or test ended with an error.
    """
    console = console or tables.console()
    tasks_by_name = {task.name: task for task in (MULTITASK, *SEPARATE)}
    if not options.tasks:
        raise InputError(f'--tasks: no task given; there are: {", ".join(tasks_by_name)}')
    tasks = [
        tasks_by_name[name] for name in dict.fromkeys(require_known(options.tasks, tasks_by_name, '--tasks: no task'))
    ]
    if options.neck is not None:
        require_known([options.neck], NECKS, '--neck: no neck')
        with_neck = NECKS[options.neck]
        tasks += [tasks_by_name[name] for name in with_neck.starts_from if tasks_by_name[name] not in tasks] + [
            with_neck
        ]
    backbone = backbone_file(options.backbone)
    require_device(options.device)
    ensure_miniature(options.data, options.drawing, lambda pairs: track(pairs, 'drawing the dataset', console=console))
    console.print(f'backbone of every network: {backbone.relative_to(HOME)}')
    with alone_in(options.work_dir, 'another demo is running'):
        results = _run_tasks(options, tasks, backbone, console)
        try:
            if MULTITASK in tasks:
                _export(options, results, console)
        finally:
            _report(options, tasks, results, console)
    command = command_of('train', 'YOUR_IMAGES', '--task', 'all').strip('`')
    console.out(f'\nThe same on your own images, labelled in any usual format:\n  {command}', highlight=False)
    return results


def _run_tasks(options: DemoOptions, tasks: Sequence[DemoTask], backbone: Path, console: Console) -> list[Result]:
    results, trained = [], {}
    for number, task in enumerate(tasks, 1):
        start = next(((name, trained[name]) for name in task.starts_from if name in trained), None)
        rows = _run_task(task, options, backbone, start, console, f'{number}/{len(tasks)}')
        text = json.dumps({'of': _comparable(options), 'rows': [asdict(row) for row in rows]})
        (options.work_dir / task.name / _RESULTS).write_text(text)
        trained[task.name] = _checkpoint(options.work_dir / task.name)
        results += rows
        write_reports(results, options.work_dir)
    return results


def _report(options: DemoOptions, tasks: Sequence[DemoTask], results: Sequence[Result], console: Console) -> None:
    """Tables, image and pages of what this call has tested, and of what earlier ones have."""
    work_dir, earlier = options.work_dir, []
    shown = list(tasks)
    for task in (MULTITASK, *SEPARATE, *NECKS.values()):
        if task not in tasks and (rows := earlier_results(work_dir / task.name, options)):
            earlier += rows
            shown.append(task)
    columns: dict[str, dict[Kind, Path]] = {}
    for task in shown:
        column = columns.setdefault('separate networks' if task in SEPARATE else task.title, {})
        column |= {evaluation.kind: work_dir / task.name / evaluation.kind.written for evaluation in task.evaluations}
    image = work_dir / 'demo.jpg'
    draw_image(columns, options.data, image)
    write_reports([*results, *earlier], work_dir, image)
    write_page([*results, *earlier], shown, work_dir, image)
    print_tables(results, console, earlier)
    console.print(f'report: {work_dir}/report.html, report.md, report.json, {image.name}')


def _export(options: DemoOptions, results: Sequence[Result], console: Console) -> None:
    """The network for all tasks as one file, which runs without torch."""
    folder = options.work_dir / MULTITASK.name
    file, log = folder / 'network.onnx', folder / 'export.log'
    is_old = tuple(map(int, torch.__version__.split('+')[0].split('.')[:2])) < (2, 6)
    if is_old or not all(find_spec(name) for name in ('onnxscript', 'onnxruntime')):
        needed = 'torch 2.6 or newer, and pip install "icconv_mm[export]"'
        console.print(f'the network as one file: needs {needed}', highlight=False, soft_wrap=True)
        return
    images = options.data / 'val' / '00000*'
    command = [HOME / 'tools/export.py', folder / 'config.py', _checkpoint(folder), '--out', file, '--images', images]
    run_tools([Tool(python(*command), log, f'{MULTITASK.title}: export')], console, {'CUDA_VISIBLE_DEVICES': ''})
    text = log.read_text()
    report, _ = json.JSONDecoder().raw_decode(text[text.rindex('{\n  "file"') :])
    (folder / 'export.json').write_text(json.dumps(report, indent=2) + '\n')
    try:
        web.write_page(file, options.work_dir / WEB.parent, single_file=True)
    except RuntimeInputError as error:
        console.print(f'the network in the browser: {error}', highlight=False, soft_wrap=True)
    console.print(*notes_on_file(results, options.work_dir), highlight=False, soft_wrap=True)


def _comparable(options: DemoOptions) -> dict[str, str]:
    """What results must have in common to be compared."""
    stamp = {'data': str(options.data.resolve()), 'drawing': str(options.drawing)}
    return stamp | {'backbone': options.backbone, 'device': options.device, 'seed': str(options.seed)}


def earlier_results(folder: Path, options: DemoOptions) -> list[Result]:
    """What an earlier demo found in the same circumstances; none where it was not, or not wholly, tested."""
    file = folder / _RESULTS
    try:
        results = json.loads(file.read_text()) if file.is_file() else {}
        return [Result(**row) for row in results['rows']] if results.get('of') == _comparable(options) else []
    except (ValueError, TypeError):  # cut short, or of another version
        return []


def _checkpoint(folder: Path) -> Path:
    """What the training of a network has left."""
    return Path(last_checkpoint(folder / 'train'))


def _run_task(
    task: DemoTask, options: DemoOptions, backbone: Path, start: tuple[str, Path] | None, console: Console, number: str
) -> list[Result]:
    """Train a network, then test it and make its retests, at once; the first result has the seconds of it all.

    ``start``: name and checkpoint of the network whose backbone it begins with.
    """
    began = time.monotonic()
    folder = options.work_dir / task.name
    if (folder / 'config.py').is_file():  # of an earlier demo, whose results must not pass for this one's
        shutil.rmtree(folder)
    origin, weights = start or (None, None)
    config = prepare_config(task, folder, backbone=backbone, data=options.data, seed=options.seed, start=weights)
    env = {'CUDA_VISIBLE_DEVICES': ''} if options.device == 'cpu' else {}
    train = python(HOME / 'tools/train.py', config, '--work-dir', folder / 'train')
    run_tools([Tool(train, folder / 'train.log', f'{number} {task.title}: train')], console, env)
    command = python(HOME / 'tools/test.py', config, _checkpoint(folder))
    # only the first test writes predictions, into files that both would have
    nothing = dict.fromkeys(f'{evaluation.evaluator}.{evaluation.kind.option}=None' for evaluation in task.evaluations)
    tests = {'test': ('', ())}
    for i, (addition, changes) in enumerate(task.retests, 1):
        tests[f'retest{i}'] = (addition, ('--cfg-options', *changes, *nothing))
    tools = [
        Tool(
            [*command, '--work-dir', str(folder / name), *changes],
            folder / f'{name}.log',
            f'{number} {task.title}{addition}: test',
        )
        for name, (addition, changes) in tests.items()
    ]
    run_tools(tools, console, env)
    seconds = round(time.monotonic() - began, 1)
    return [
        Result(
            task=evaluation.title + addition,
            config=f'configs/{task.config}',
            backbone_file=str(backbone.relative_to(HOME)),
            metric=evaluation.kind.metric,
            value=round(evaluation.kind.scale * read_metric(folder / name, evaluation.key), 4),
            threshold=evaluation.threshold if name == 'test' else None,
            seconds=seconds if name == 'test' and evaluation is task.evaluations[0] else None,
            backbone_from=origin,
            network=task.name,
        )
        for name, (addition, _) in tests.items()
        for evaluation in (task.evaluations if name == 'test' else task.evaluations[-1:])
    ]


def read_metric(folder: Path, key: str) -> float:
    """A metric of the latest test below ``folder``; 0 without one, as mmdet gives none if nothing is detected."""
    files = sorted(folder.glob('*/*.json'), key=lambda file: file.stat().st_mtime)
    metrics = json.loads(files[-1].read_text()) if files else {}
    value = float(metrics.get(key, 0.0))
    return value if math.isfinite(value) else 0.0
