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
    longest = max(map(len, panels.values()))
    canvas = Canvas(figsize=(max(7, 2 + 0.55 * longest), 4.5 * len(panels)), layout='constrained')
    FigureCanvasAgg(canvas)
    for axes, (panel, groups) in zip(canvas.subplots(len(panels), squeeze=False)[:, 0], panels.items()):
        _draw(axes, panel, groups)
    canvas.savefig(path, dpi=120)


def _draw(axes, panel: str, groups: dict[str, dict[str, float]]) -> None:
    width = 0.8 / len(COLORS)
    for number, (name, color) in enumerate(COLORS.items()):
        places = [place + (number - 1) * width for place in range(len(groups))]
        heights = [times.get(name, 0) / times['baseline'] for times in groups.values()]
        axes.bar(places, heights, width, color=color, label=name)
    axes.axhline(1, color='black', linewidth=0.8)
    axes.set_xticks(range(len(groups)), groups, rotation=90)
    axes.set_ylabel('time, baseline = 1')
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_title(panel)
    axes.legend()
