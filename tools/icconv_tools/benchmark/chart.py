"""The chart of a benchmark: bars of what ours and its baselines take."""

from collections.abc import Sequence
from pathlib import Path

from icconv_mm.errors import InputError
from icconv_tools.benchmark.report import Figure

COLORS = {'baseline': '#9aa5b1', 'ours': '#1f77b4', 'composition': '#e4a03b'}
BASELINES = ('dense', 'upstream')  # of layers and of networks


def bars(figures: Sequence[Figure]) -> dict[str, dict[str, dict[str, float]]]:
    """Panel -> what was timed -> contender -> median milliseconds, of figures named '<what>: ours / <baseline>'.

    Forward passes and training steps of a suite have a panel each.
    """
    panels: dict[str, dict[str, dict[str, float]]] = {}
    for figure in figures:
        label, found, rest = figure.name.partition(': ours / ')
        if found and figure.unit == 'ms':
            what, _, form = label.rpartition(' ')
            panel, what = (f'{figure.suite}, training step', what) if form == 'step' else (figure.suite, label)
            times = panels.setdefault(panel, {}).setdefault(what.removesuffix(' forward'), {})
            times['ours'] = 1e3 * figure.subject.median
            times['baseline' if rest in BASELINES else rest] = 1e3 * figure.baseline.median
    return panels


def write_chart(figures: Sequence[Figure], path: str | Path) -> None:
    """A chart of panels: a group of bars for everything timed, relative to its baseline.

    Raises:
        InputError: If no figure compares ours with a baseline.
    """
    # not pyplot, which would look for a screen
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    panels = {
        panel: {label: times for label, times in groups.items() if 'baseline' in times}
        for panel, groups in bars(figures).items()
    }
    panels = {panel: groups for panel, groups in panels.items() if groups}
    if not panels:
        raise InputError('no figure to draw: suites layers, backbone and models have bars')
    heights = [1.2 + 0.4 * len(groups) for groups in panels.values()]
    canvas = Canvas(figsize=(9, sum(heights)), layout='constrained')
    FigureCanvasAgg(canvas)
    rows = canvas.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (panel, groups) in zip(rows, panels.items()):
        _draw(axes, panel, groups)
    canvas.savefig(path, dpi=120)


def _draw(axes, panel: str, groups: dict[str, dict[str, float]]) -> None:
    height = 0.8 / len(COLORS)
    for number, (name, color) in enumerate(COLORS.items()):
        places = [place + (number - 1) * height for place in range(len(groups))]
        lengths = [times.get(name, 0) / times['baseline'] for times in groups.values()]
        axes.barh(places, lengths, height, color=color, label=name)
    axes.axvline(1, color='black', linewidth=0.8)
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()  # the first one on top
    axes.set_xlabel('time, baseline = 1')
    axes.set_title(panel)
    axes.legend(loc='upper left', bbox_to_anchor=(1, 1))  # beside the bars, not on them
