"""Runs exported networks in runtimes, each in an environment of its own, and writes the table of docs/export.md.

``make`` exports one network of each family with random weights; it needs this package's environment. ``run`` needs
numpy and the runtime alone, so call it by the Python of the runtime's environment. Each file runs in a process of its
own, because a runtime may end its process. ``table`` writes the results to ``docs/measurements`` and to the page.

Examples:
  python tools/dev/runtimes.py make work_dirs/runtimes
  ENVIRONMENT/bin/python tools/dev/runtimes.py run work_dirs/runtimes tract
  python tools/dev/runtimes.py table work_dirs/runtimes
"""

import argparse
import copy
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from icconv_workshop.runtimes import CONVERTS, OF_PROGRAMS, RUNTIMES, Arrays, arguments_of

ROOT = Path(__file__).resolve().parents[2]
PAGE, RESULTS = ROOT / 'docs/export.md', ROOT / 'docs/measurements/2026-11-28-runtimes.json'
START, END = '<!-- written by tools/dev/runtimes.py from here -->\n', '<!-- to here -->\n'
SIDE, SECONDS = 128, 900  # of the images; at most for a file
FAMILIES = {  # recipe of each column
    'IC-ResNet': 'classification/ic-resnet18_8xb32_in1k',
    'PyConvResNet': 'classification/pyconv-resnet18_8xb32-90e_in1k',
    'FPN': 'semantic_segmentation/fpn_ic-r18_miniature',
    'PyConvSegNet': 'semantic_segmentation/pyconvsegnet_pyconv-r18_miniature',
    'AE': 'pose/ae_ic-r18_miniature',
    'RTMO': 'pose/rtmo_ic-r50-k13_16xb16-600e_coco-640x640',
    'RetinaNet': 'detection/retinanet_ic-r50-k9_fpn_1x_coco',
    'Mask R-CNN': 'instance_segmentation/mask-rcnn_ic-r18_fpn_miniature',
    'all tasks': 'multitask/multitask_ic-r18_fpn_miniature',
}
PARTS = 'input', 'output'
TITLES = {'fixed': 'Files of one size, `--fixed 1xHxW`:', 'free': 'Files of free sizes:'}
FORMS = {'fixed': (1, SIDE, SIDE), 'free': None}  # of the files, by their name's middle part


# --- the files


def make(folder: Path, families: Sequence[str]) -> None:
    """Writes the files of each family, and the inputs and outputs of its program in torch."""
    import cv2

    from export_survey import short_backbones

    folder.mkdir(parents=True, exist_ok=True)
    colors = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
    image = cv2.resize(colors, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    for family in families or FAMILIES:
        with short_backbones():
            _make_family(folder / family, family, image)
        print(family, flush=True)


def _make_family(stem: Path, family: str, image: np.ndarray) -> None:
    import cv2
    import torch

    from export_survey import CONFIGS, make_small, save_random
    from icconv_mm import apis
    from icconv_mm.config_tree import kind_of
    from icconv_mm_runtime import Session

    run = apis.load_run(CONFIGS / f'{FAMILIES[family]}.py')
    make_small(run, (SIDE, SIDE))
    for transform in run.inference_transforms():
        if kind_of(transform) == 'ResizeEdge':
            transform['scale'] = SIDE
        elif kind_of(transform) == 'CenterCrop':
            transform['crop_size'] = SIDE
    if family == 'AE':
        run.cfg.model.test_cfg['flip_test'] = True
    elif family == 'RTMO':
        run.cfg.model.test_cfg['score_thr'] = 0.5  # runtimes round sigmoids near 0 differently
    with tempfile.TemporaryDirectory() as temporary:
        weights = f'{temporary}/weights.pth'
        cv2.imwrite(f'{temporary}/image.png', image)
        save_random(copy.deepcopy(run), weights)
        for out, to in [('fixed.onnx', 'onnx'), ('free.onnx', 'onnx'), ('fixed.pt2', 'program')]:
            fixed = FORMS[out.partition('.')[0]]
            apis.export(copy.deepcopy(run), weights, to, f'{stem}.{out}', images=temporary, fixed=fixed)
    session = Session(f'{stem}.fixed.onnx')
    inputs = {'image': image.transpose(2, 0, 1)[None]}
    if session.metadata['batch']['sized']:
        inputs['size'] = np.array([[SIDE - 16, SIDE - 32, 1, 1]], np.float32)
    with torch.no_grad():
        outputs = torch.export.load(f'{stem}.fixed.pt2').module()(*arguments_of(inputs))
    names = [name for task in session.metadata['tasks'] for name in _outputs_of(task)]
    expected = {f'output {name}': value.numpy() for name, value in zip(names, outputs, strict=True)}
    np.savez(f'{stem}.npz', **{f'input {name}': value for name, value in inputs.items()}, **expected)


def _outputs_of(task: Mapping[str, Any]) -> list[str]:
    return [f'{task["name"]}.{name}' if task['name'] else name for name in task['outputs']]


# --- the results


def run(folder: Path, name: str, families: Sequence[str]) -> None:
    """Runs the files in a runtime, each in a process of its own, and writes ``FOLDER/results/NAME VERSION.json``."""
    version = version_of(name)
    path = folder / f'results/{name} {version}.json'
    path.parent.mkdir(exist_ok=True)
    cells = json.loads(path.read_text())['cells'] if path.is_file() else {}
    for form in forms_of(name):
        for family in families or FAMILIES:
            cells.setdefault(form, {})[family] = cell = outcome(folder, name, form, family)
            print(f'{name} {version}, {form}, {family}: {cell}', flush=True)
            path.write_text(json.dumps({'runtime': name, 'version': version, 'cells': cells}, indent=1) + '\n')


def forms_of(name: str) -> list[str]:
    """Returns the forms of files that a runtime gets; most converters take one size."""
    return ['fixed'] if name in (*OF_PROGRAMS, 'onnx2tf') else list(FORMS)


def version_of(name: str) -> str:
    """Returns the version of the installed runtime."""
    package = RUNTIMES[name][1]
    if package.startswith('onnxruntime-'):
        return json.loads(Path('node_modules', package, 'package.json').read_text())['version']
    return metadata.version(package)


def outcome(folder: Path, name: str, form: str, family: str) -> float | str:
    """Returns the largest difference of a file, or what stops it."""
    command = [sys.executable, __file__, 'one', str(folder), name, form, family]
    with tempfile.TemporaryFile('w+') as said:
        try:
            code = subprocess.run(command, stdout=said, stderr=subprocess.STDOUT, timeout=SECONDS).returncode
        except subprocess.TimeoutExpired:
            return f'does not end in {SECONDS} s'
        said.seek(0)
        text = said.read()
    if match := re.search(r'^RESULT (.*)$', text, re.MULTILINE):
        return json.loads(match[1])
    return f'the process ends by signal {-code}' if code < 0 else f'the process ends with status {code}'


def one(folder: Path, name: str, form: str, family: str) -> float | str:
    """Runs one file in this process."""
    file = folder / f'{family}.{form}{".pt2" if name in OF_PROGRAMS else ".onnx"}'
    with np.load(folder / f'{family}.npz') as arrays:
        parts = {part: {key.partition(' ')[2]: arrays[key] for key in arrays if key.startswith(part)} for part in PARTS}
    try:
        outputs = RUNTIMES[name][0](file, parts['input'])
    except Exception as error:  # a runtime may raise anything
        return _first_line(f'{type(error).__name__}: {error}')
    return outputs if isinstance(outputs, str) else difference(parts['output'], outputs)


def _first_line(text: str) -> str:
    """Returns the beginning of a message in one line, without paths and calls."""
    text = ' '.join(text.partition('Stack backtrace')[0].split())
    text = re.sub(r'(?<!\w)/[\w./+-]*/', '', text)
    return text if len(text) <= 200 else f'{text[:200]} ...'


def _order(expected: Arrays, outputs: dict[str, np.ndarray], task: str) -> None:
    """Puts each box at the index of the nearest known one, in place: a last digit decides the order of equal scores."""
    names = [f'{task}{name}' for name in ('boxes', 'scores', 'labels', 'masks') if f'{task}{name}' in expected]
    rows = [
        np.concatenate([of[name][0].reshape(len(of[name][0]), -1) for name in names], 1) for of in (expected, outputs)
    ]
    left, order = list(range(len(rows[0]))), []
    for row in rows[0]:
        order.append(left.pop(int(np.abs(rows[1][left] - row).sum(1).argmin())))
    for name in names:
        outputs[name] = outputs[name][:, order]


def difference(expected: Arrays, outputs: Mapping[str, np.ndarray] | Sequence[np.ndarray]) -> float | str:
    """Returns the largest difference of an output, relative to its largest value."""
    if not isinstance(outputs, Mapping):
        outputs = dict(zip(expected, outputs, strict=True))
    largest = 0.0
    outputs = {name: np.asarray(outputs[name]) for name in expected}
    for name, value in expected.items():
        if outputs[name].shape != value.shape:
            return f'the output {name} has the shape {list(outputs[name].shape)}, not {list(value.shape)}'
    for name in [name for name in expected if name.endswith('boxes')]:
        _order(expected, outputs, name.removesuffix('boxes'))
    for name, value in expected.items():
        output = outputs[name]
        apart = np.abs(output.astype(np.float64) - value).max() / max(np.abs(value).max(), 1e-12)
        largest = max(largest, float(apart if np.isfinite(apart) else np.inf))
    return largest


# --- the table


def collect(folder: Path) -> None:
    """Adds the results in a folder to :data:`RESULTS`, in place of those of the same runtime, version and family."""
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    earlier = {(result['runtime'], result['version']): result for result in results}
    for path in sorted(folder.glob('results/*.json')):
        content = json.loads(path.read_text())
        if (before := earlier.get((content['runtime'], content['version']))) is None:
            results.append(content)
            continue
        for form, cells in content['cells'].items():
            before['cells'].setdefault(form, {}).update(cells)
    order = list(RUNTIMES)
    results.sort(
        key=lambda row: (order.index(row['runtime']), [int(part) for part in re.findall(r'\d+', row['version'])])
    )
    RESULTS.write_text(json.dumps(results, indent=1) + '\n')


def tables(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table for each form of the files, and what stops the others."""
    reasons: dict[str, int] = {}
    lines = []
    for form, title in TITLES.items():
        lines += [f'{title}\n', f'| | {" | ".join(FAMILIES)} |', f'|---{"|---" * len(FAMILIES)}|']
        for result in results:
            if cell := result['cells'].get(form):
                cells = [_cell(cell[family], reasons) if family in cell else '' for family in FAMILIES]
                lines.append(f'| {result["runtime"]} {result["version"]} | {" | ".join(cells)} |')
        lines.append('')
    return '\n'.join([*lines, *(f'{number}. {reason}' for reason, number in reasons.items()), ''])


def _cell(value: float | str, reasons: dict[str, int]) -> str:
    if not isinstance(value, str):
        return f'{value:.0e}'.replace('e-0', 'e-') if value else '0'
    if value == CONVERTS:
        return value
    return f'({reasons.setdefault(value, len(reasons) + 1)})'


def page_with_table(text: str) -> str:
    """Returns the text of the page with the tables between its marks."""
    before, rest = text.split(START)
    return before + START + '\n' + tables(json.loads(RESULTS.read_text())) + '\n' + END + rest.split(END)[1]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    for name in ('make', 'run', 'one', 'table'):
        commands.add_parser(name).add_argument('folder', type=Path)
    for name in ('run', 'one'):
        commands.choices[name].add_argument('runtime', choices=RUNTIMES)
    for name in ('make', 'run'):
        commands.choices[name].add_argument('families', nargs='*', metavar='FAMILY', help='default: all')
    commands.choices['one'].add_argument('form', choices=FORMS)
    commands.choices['one'].add_argument('family', choices=FAMILIES)
    args = parser.parse_args(argv)
    if args.command == 'make':
        make(args.folder, args.families)
    elif args.command == 'run':
        run(args.folder, args.runtime, args.families)
    elif args.command == 'one':
        print('RESULT', json.dumps(one(args.folder, args.runtime, args.form, args.family)))
    else:
        collect(args.folder)
        PAGE.write_text(page_with_table(PAGE.read_text()))


if __name__ == '__main__':
    main()
