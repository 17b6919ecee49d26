"""``report.html``: one file with tables, image, curves and configurations, which needs nothing beside it."""

import base64
import html
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from icconv_tools.demo.report import TITLE, Result, notes_on, notes_on_file, rows_of, rows_of_both
from icconv_tools.demo.tasks import MULTITASK, DemoTask

WEB = Path(MULTITASK.name, 'web', 'index.html')  # below the work folder: the network in the browser
_COLUMNS = 4  # plots in a row
_WIDTH, _HEIGHT = 11.0, 1.75  # inches of all columns, of a row
_CLOCKS = {'time', 'data_time', 'iter', 'step', 'epoch', 'memory'}  # logged, and neither loss nor metric
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1080px; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.missed td { color: #b00020; }
.verdict { font-weight: 600; } .passed { color: #1b7a3d; } .missed { color: #b00020; }
img, svg { max-width: 100%; height: auto; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 12px; line-height: 1.35; }
"""

# key -> step -> value
Curves = dict[str, dict[int, float]]


def write_page(results: Sequence[Result], tasks: Sequence[DemoTask], folder: Path, image: Path) -> None:
    """Write ``report.html`` below ``folder``.

    Args:
        results: What was measured.
        tasks: The networks, each of which has a folder with ``train``, ``test`` and ``config.py`` below ``folder``.
        folder: The work folder of the demo.
        image: A JPEG with the truth and the predictions.
    """
    missed = [result.task for result in results if not result.passed]
    verdict = f'Below the threshold: {", ".join(missed)}.' if missed else 'Every threshold is reached.'
    parts = [
        f'<h1>{TITLE}</h1>',
        f'<p class="verdict {"missed" if missed else "passed"}">{html.escape(verdict)}</p>',
        _table(rows_of(results), [not result.passed for result in results]),
        *(f'<p>{html.escape(note)}</p>' for note in [*notes_on(results), *notes_on_file(results, folder)]),
    ]
    if (folder / WEB).is_file():
        parts.append(
            f'<p><a href="{WEB.as_posix()}">The network in this browser</a>: on your own images or camera.</p>'
        )
    if both := rows_of_both(results):
        parts += ['<h2>One network and four</h2>', _table(both)]
    encoded = base64.b64encode(image.read_bytes()).decode()
    parts += [
        '<h2>Truth and predictions</h2>',
        '<p>Segmentation maps tint, white lines are the contours of masks, white dots are keypoints.</p>',
        f'<img alt="truth and predictions of a few scenes" src="data:image/jpeg;base64,{encoded}">',
    ]
    for task in tasks:
        parts += _network(task, folder / task.name)
    page = f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{TITLE}</title>\n'
    page += '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    page += f'<style>{_STYLE}</style>\n</head>\n<body>\n' + '\n'.join(parts) + '\n</body>\n</html>\n'
    (folder / 'report.html').write_text(page)


def _network(task: DemoTask, folder: Path) -> list[str]:
    """Curves and configuration of a network."""
    losses, metrics = _curves(folder, task)
    parts = [f'<h2>{html.escape(task.title[:1].upper() + task.title[1:])}</h2>']
    for name, curves, lines in (('losses', losses, {}), ('metrics', metrics, _thresholds(task))):
        if curves:
            parts.append(_plots(curves, lines, f'{task.title}: {name} by iteration'))
    if (config := folder / 'config.py').is_file():
        text = html.escape(config.read_text())
        parts.append(f'<details><summary>configuration</summary><pre>{text}</pre></details>')
    return parts


def _table(rows: Sequence[Sequence[str]], marked: Sequence[bool] = ()) -> str:
    """Titles first; what begins like a number stands to the right."""
    titles, *rows = rows
    lines = ['<tr>' + ''.join(f'<th>{html.escape(name)}</th>' for name in titles) + '</tr>']
    for i, row in enumerate(rows):
        cells = ''.join(
            f'<td{" class=number" if value[:1] in "0123456789+->" else ""}>{html.escape(value)}</td>' for value in row
        )
        lines.append(f'<tr{" class=missed" if i < len(marked) and marked[i] else ""}>{cells}</tr>')
    return '<table>\n' + '\n'.join(lines) + '\n</table>'


def _curves(folder: Path, task: DemoTask) -> tuple[Curves, Curves]:
    """What the latest training logged, and what validations in its course and the test after it found."""
    files = sorted(folder.glob('train/*/vis_data/scalars.json'))
    records = [json.loads(line) for line in files[-1].read_text().splitlines()] if files else []
    last = max((record['step'] for record in records), default=0)  # of a validation there the test takes the place
    records += [json.loads(file.read_text()) | {'step': last} for file in sorted(folder.glob('test/*/*.json'))[-1:]]
    losses, metrics = defaultdict(dict), defaultdict(dict)
    for record in records:
        for key, value in record.items():
            if key not in _CLOCKS and isinstance(value, int | float):
                (losses if 'lr' in record else metrics)[key][record['step']] = value
    return losses, metrics


def _thresholds(task: DemoTask) -> dict[str, float]:
    """The least value that passes by the key of the metric, in the evaluator's units."""
    return {evaluation.key: evaluation.threshold / evaluation.kind.scale for evaluation in task.evaluations}


def _plots(curves: Curves, lines: Mapping[str, float], label: str) -> str:
    """An SVG with a small plot for each curve, and a dashed line at a threshold."""
    rows = -(-len(curves) // _COLUMNS)
    with mpl.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': label, 'font.size': 7, 'font.family': 'sans-serif'}):
        figure = Figure(figsize=(_WIDTH, _HEIGHT * rows), layout='constrained')
        for index, (key, curve) in enumerate(curves.items(), 1):
            axes = figure.add_subplot(rows, _COLUMNS, index, title=key)
            axes.plot(list(curve), list(curve.values()), marker='.' if len(curve) < 8 else None, linewidth=1.2)
            if key in lines:
                axes.axhline(lines[key], color='#b00020', linestyle='--', linewidth=0.8)
            axes.set_xlim(left=0)
            axes.grid(alpha=0.3)
        out = io.StringIO()
        figure.savefig(out, format='svg', metadata={'Date': None})
    svg = out.getvalue()
    return svg[svg.index('<svg') :].replace('<svg', f'<svg role="img" aria-label="{html.escape(label)}"', 1)
