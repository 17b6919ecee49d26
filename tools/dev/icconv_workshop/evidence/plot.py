"""Differences with their intervals, drawn."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_ROW, _TITLE, _WIDTH = 0.32, 0.65, 9.0  # inches


def plot_intervals(comparisons: Sequence[dict], path: Path) -> None:
    """One panel for each metric of each comparison: a point for a mean, a line for its interval, a stroke for a seed.

    Args:
        comparisons: As :func:`icconv_workshop.evidence.report.write_report` gives them.
        path: The image to write; nothing is written where no arm has a difference.
    """
    panels = []
    for comparison in comparisons:
        for metric in comparison['metrics']:
            rows = {
                row['title']: row['differences'][metric] for row in comparison['rows'] if metric in row['differences']
            }
            if rows:
                baseline = comparison['rows'][0]
                score = baseline['scores'][metric]['mean']
                title = f'{comparison["name"]}: {metric} less that of {baseline["title"]}, {score:.1f}'
                panels.append((title, rows))
    if not panels:
        return
    heights = [_ROW * len(rows) + _TITLE for _, rows in panels]
    figure = Figure((_WIDTH, sum(heights)), layout='constrained')
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw=dict(height_ratios=heights))
    for axis, panel in zip(axes[:, 0], panels):
        _draw(axis, *panel)
    figure.savefig(path, dpi=100)


def _draw(axis: Axes, title: str, rows: dict[str, dict]) -> None:
    axis.axvline(0, color='0.6', linewidth=1)
    for height, difference in enumerate(rows.values()):
        values = difference['values']
        axis.plot(values, [height] * len(values), '|', color='0.45')
        axis.plot(difference['mean'], height, 'o', color='tab:blue')
        if difference['low'] is not None:
            axis.plot([difference['low'], difference['high']], [height] * 2, color='tab:blue', linewidth=2)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_title(title, loc='left', fontsize='medium')
