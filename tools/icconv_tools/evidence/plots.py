"""The plots: differences with their intervals, and chosen dilations against planted distances."""

import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure


def draw_differences(comparisons: Sequence[dict], path: Path) -> Path | None:
    """Mean difference and interval of every arm to its baseline, a panel for each comparison and metric.

    Args:
        comparisons: As report.json has them.
        path: The image to write.

    Returns:
        ``path``; None, and nothing written, where there is no difference yet.
    """
    panels = []
    for comparison in comparisons:
        for metric in comparison['metrics']:
            rows = [row for row in comparison['rows'] if metric in row['differences']]
            if rows:
                panels.append((f'{comparison["name"]}: {metric}', rows, metric))
    if not panels:
        return None
    heights = [0.7 + 0.3 * len(rows) for _, rows, _ in panels]
    figure = Figure(figsize=(8, sum(heights) + 0.6), layout='constrained')
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, rows, metric) in zip(axes, panels):
        axis.axvline(0, color='0.6', linewidth=1)
        for y, row in enumerate(rows):
            difference = row['differences'][metric]
            axis.plot(difference['values'], [y] * len(difference['values']), '|', color='0.6')
            if difference['low'] is not None:
                axis.plot([difference['low'], difference['high']], [y, y], color='C0')
            axis.plot(difference['mean'], y, 'o', color='C0')
        axis.set_yticks(range(len(rows)), [row['title'] for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_title(title, loc='left', fontsize='medium')
    figure.savefig(path, dpi=120)
    return path


def draw_dilations(report: dict, path: Path) -> Path | None:
    """Mean dilation that the searches chose in each stage, against the planted distance.

    Args:
        report: As report.json has it.
        path: The image to write.

    Returns:
        ``path``; None, and nothing written, where nothing was searched at two distances.
    """
    chosen: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for search in report['searches']:
        if len(search['distances']) == 1:
            for stage, mean in stage_means(search['layers']).items():
                chosen[stage][search['distances'][0]].append(mean)
    if len({distance for found in chosen.values() for distance in found}) < 2:
        return None
    figure = Figure(figsize=(6, 4), layout='constrained')
    axis = figure.subplots()
    for stage, found in sorted(chosen.items()):
        distances = sorted(found)
        means = [statistics.fmean(found[each]) for each in distances]
        spread = [statistics.pstdev(found[each]) for each in distances]
        axis.errorbar(distances, means, spread, marker='o', capsize=3, label=stage)
    axis.set_xlabel('planted distance in pixels')
    axis.set_ylabel('mean dilation chosen')
    axis.legend()
    figure.savefig(path, dpi=120)
    return path


def stage_means(layers: Sequence[dict]) -> dict[str, float]:
    """The mean of both dilations over the layers of each stage."""
    found: dict[str, list[float]] = defaultdict(list)
    for layer in layers:
        stage = re.search(r'layer(\d)', layer['layer'])
        found[f'stage {stage[1]}' if stage else layer['layer']] += layer['mean']
    return {stage: statistics.fmean(values) for stage, values in found.items()}
