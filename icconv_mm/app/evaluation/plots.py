"""The plots of a report, as SVG."""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.runner import EpochBasedTrainLoop, Runner

from icconv_mm.app.evaluation.curves import logged_curves
from icconv_mm.app.evaluation.evaluate import metric_name
from icconv_mm.app.evaluation.results import Evaluation
from icconv_mm.versions import is_installed
from icconv_mm_runtime.drawing import color_of

_INK = '#010203'  # becomes the page's colour of text
_NAMES = 12  # most curves of a plot
_LETTERS = 28  # of a name in a plot
_POINTS = 400  # most points of a curve


def training_plots(runner: Runner) -> list[Any]:
    """Returns the plots of losses, metrics and learning rates from the logs of a run's folder, as :func:`_plot`."""
    loop = runner.train_loop
    steps = len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else 1
    plots = []
    for title, group in logged_curves(Path(runner.work_dir), steps).items():
        named = {metric_name(key) if title == 'metric' else key: values for key, values in group.items()}
        chosen = sorted(named.items(), key=lambda item: (len(item[0]), item[0]))[:_NAMES]
        curves = {key: np.array(sorted(values.items())).T for key, values in chosen}
        plots.append(_plot(title, curves, 'iteration'))
    return [plot for plot in plots if plot is not None]


def precision_recall_plot(evaluation: Evaluation) -> Any:
    """Plots the classes with the most room for improvement, if there are many."""
    chosen = sorted(evaluation.curves.items(), key=lambda item: item[1][1].mean())[:_NAMES]
    title = 'precision against recall' + (f', the {_NAMES} worst classes' if len(evaluation.curves) > _NAMES else '')
    return _plot(title, dict(chosen), 'recall', square=True)


def _plot(title: str, curves: Mapping[str, np.ndarray], x: str, square: bool = False) -> Any:
    """Returns an SVG whose text has the colour and font of the page; None without matplotlib."""
    if not is_installed('matplotlib'):
        return None
    import matplotlib
    from markupsafe import Markup
    from matplotlib.figure import Figure

    colors = dict.fromkeys(('text.color', 'axes.edgecolor', 'axes.labelcolor', 'xtick.color', 'ytick.color'), _INK)
    fonts = {'svg.fonttype': 'none', 'svg.hashsalt': title, 'font.family': 'sans-serif', 'font.size': 9}
    with matplotlib.rc_context({**colors, **fonts, 'text.parse_math': False, 'text.usetex': False}):
        figure: Figure = Figure(figsize=(4.6, 3.4), layout='constrained', facecolor='none')
        axis = figure.subplots()
        axis.set_facecolor('none')
        for number, (key, points) in enumerate(curves.items()):
            points = points[:, np.unique(np.linspace(0, points.shape[1] - 1, _POINTS).round().astype(int))]
            marker = '.' if points.shape[1] < 30 else None
            axis.plot(*points, label=_shortened(key), color=np.array(color_of(number)) / 255, marker=marker, lw=1.4)
        axis.set(xlabel=x, title=title)
        if square:
            axis.set(xlim=(0, 1.01), ylim=(0, 1.02), ylabel='precision')
        axis.grid(alpha=0.25)
        axis.spines[['top', 'right']].set_visible(False)
        figure.legend(loc='outside lower center', ncols=2, fontsize=7.5, frameon=False)
        out = io.StringIO()
        figure.savefig(out, format='svg', metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type')))
    addresses = r' xmlns(:xlink)?="[^"]*"|<metadata>.*?</metadata>'
    svg = re.sub(addresses, '', out.getvalue(), flags=re.DOTALL)
    svg = svg.replace(_INK, 'currentColor')
    return Markup(svg[svg.index('<svg') :].replace('<svg', f'<svg role="img" aria-label="{Markup.escape(title)}"', 1))


def _shortened(name: str) -> str:
    return name if len(name) <= _LETTERS else f'{name[: _LETTERS - 1]}…'
