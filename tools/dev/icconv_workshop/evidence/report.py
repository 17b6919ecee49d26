"""What was found: report.json, tables in report.md and on the terminal, and a plot for each set."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console

from icconv_mm.app.commands.tables import markdown, table
from icconv_mm.files import write_json
from icconv_workshop.evidence.arms import ARMS
from icconv_workshop.evidence.comparisons import Comparison, Row
from icconv_workshop.evidence.differences import Difference, paired
from icconv_workshop.evidence.experiment import Experiment, finished
from icconv_workshop.evidence.plot import plot_intervals
from icconv_workshop.evidence.scores import SIZES


def write_report(experiment: Experiment) -> dict:
    """Write report.json, report.md and report_SET.png below the experiment's folder, and print the tables.

    Returns:
        What report.json holds.
    """
    comparisons = [_comparison(experiment, comparison) for comparison in experiment.comparisons]
    report = {
        'budget': experiment.budget.name,
        'seeds': list(experiment.seeds),
        'comparisons': comparisons,
    }
    write_json(experiment.root / 'report.json', report, indent=1)
    parts, console = [], Console(width=None if os.isatty(1) else 200)
    for comparison in comparisons:
        if comparison['rows']:
            cells = cells_of(comparison)
            parts.append(f'## {comparison["name"]}\n\n{comparison["claim"]}\n\n{markdown(cells)}')
            console.print(table(comparison['name'], cells, {'arm'}))
    (experiment.root / 'report.md').write_text('\n'.join(['# Evidence\n', *parts]))
    for data in dict.fromkeys(comparison['data'] for comparison in comparisons):
        plot_intervals(
            [comparison for comparison in comparisons if comparison['data'] == data],
            experiment.root / f'report_{data}.png',
        )
    console.out(f'report: {experiment.root / "report.md"}', highlight=False)
    return report


def results_of(experiment: Experiment, row: Row) -> dict[int, dict]:
    """The results of a row's arm by seed, those that are there."""
    runs = {seed: experiment.run_of(row.arm, seed) for seed in experiment.seeds}
    return {seed: run.result() for seed, run in runs.items() if finished(run)}


def _comparison(experiment: Experiment, comparison: Comparison) -> dict:
    baseline = results_of(experiment, comparison.rows[0])
    rows = []
    for row in (*comparison.rows, *comparison.costs):
        results = results_of(experiment, row)
        if not results:
            continue
        scores = {seed: result['tests'][row.test] for seed, result in results.items()}
        rows.append(
            {
                'title': row.title,
                'arm': row.arm,
                'test': row.test,
                'seeds': list(results),
                'scores': _means(list(scores.values())),
                'values': {metric: [score.get(metric) for score in scores.values()] for metric in comparison.metrics},
                'differences': {} if row is comparison.rows[0] else _differences(comparison, scores, baseline),
                'costs': _costs(list(results.values())),
                'cosines': _means([result.get('cosines', {}) for result in results.values()]),
            }
        )
    return {
        'name': comparison.name,
        'claim': comparison.claim,
        'data': ARMS[comparison.rows[0].arm].data,
        'metrics': list(comparison.metrics),
        'rows': rows,
    }


def _differences(comparison: Comparison, scores: dict[int, dict], baseline: dict[int, dict]) -> dict[str, dict]:
    """By metric; of the seeds that both have."""
    both = [seed for seed in scores if seed in baseline]
    first = comparison.rows[0]
    differences = {}
    for metric in comparison.metrics:
        pairs = [(scores[seed].get(metric), baseline[seed]['tests'][first.test].get(metric)) for seed in both]
        pairs = [pair for pair in pairs if None not in pair]
        if pairs:
            difference = paired(*zip(*pairs))
            differences[metric] = {**asdict(difference), 'verdict': difference.verdict}
    return differences


def _means(scores: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    means = {}
    for name in dict.fromkeys(name for score in scores for name in score):
        values = [score[name] for score in scores if name in score]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        means[name] = {'mean': statistics.fmean(values), 'std': spread}
    return means


def _costs(results: Sequence[dict]) -> dict[str, float]:
    """Times are the least of the seeds: what else ran on the machine only adds to them."""
    return {
        'parameters': statistics.fmean(result['costs']['parameters'] for result in results),
        'flops': statistics.fmean(result['costs']['flops'] for result in results),
        'milliseconds': min(result['costs']['milliseconds'] for result in results),
        'seconds_of_step': min(result['seconds_of_step'] for result in results),
        'iterations': results[0]['iterations'],
    }


def cells_of(comparison: dict) -> list[list[str]]:
    """What the table of a comparison shows, titles first."""
    metrics = comparison['metrics']
    scores = comparison['rows'][0]['scores']
    sizes = [f'{metrics[0]}_{name}' for name in SIZES if f'{metrics[0]}_{name}' in scores]
    titles = ['arm', *(title for metric in metrics for title in (metric, 'difference'))]
    cells = [[*titles, *sizes, 'seeds', 'parameters', 'MFLOPs', 'ms', 'ms of a step', 'iterations']]
    for row in comparison['rows']:
        costs = row['costs']
        line = [row['title']]
        for metric in metrics:
            score, difference = row['scores'].get(metric), row['differences'].get(metric)
            line += [_shown(score), '' if difference is None else shown_difference(difference)]
        line += [_shown(row['scores'].get(size)) for size in sizes]
        line += [str(len(row['seeds'])), f'{costs["parameters"] / 1e3:.0f} k', f'{costs["flops"] / 1e6:.0f}']
        line += [f'{costs["milliseconds"]:.1f}', f'{1e3 * costs["seconds_of_step"]:.0f}', str(costs['iterations'])]
        cells.append(line)
    return cells


def _shown(score: dict | None) -> str:
    return '' if score is None else f'{score["mean"]:.2f} ± {score["std"]:.2f}'


def shown_difference(difference: dict | Difference) -> str:
    """``+1.20 [+0.40, +2.10]``."""
    values = difference if isinstance(difference, dict) else asdict(difference)
    interval = '' if values['low'] is None else f' [{values["low"]:+.2f}, {values["high"]:+.2f}]'
    return f'{values["mean"]:+.2f}{interval}'
