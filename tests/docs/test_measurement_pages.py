"""What pages and README quote of measurements is in the raw files of docs/measurements."""

import json
import re
from pathlib import Path

import pytest
from pages import REPO, section, tables

FOLDER = REPO / 'docs/measurements'


UPSTREAM = FOLDER / '2026-11-24-upstream.md'


def figures(page: Path) -> dict[str, dict]:
    """The figures of the raw file by name."""
    return {figure['name']: figure for figure in json.loads(page.with_suffix('.json').read_text())['figures']}


def beside(page: Path, name: str) -> Path:
    """Another raw file of a page, as if it had a page of its own."""
    return page.with_name(f'{page.stem}-{name}.md')


@pytest.mark.parametrize(('heading', 'raw'), [('Networks', UPSTREAM), ('Whole models', beside(UPSTREAM, 'models'))])
def test_networks_against_upstream(heading, raw):
    upstream = figures(raw)
    ((_, *rows),) = tables(section(UPSTREAM, heading))
    assert {name for name in upstream if name.endswith('ours / upstream')} == {
        f'{name.strip("`")}: ours / upstream' for _, name, *_ in rows
    }
    for what, name, limit, ours, theirs, ratio in rows:
        figure = upstream[f'{name.strip("`")}: ours / upstream']
        assert limit == ('' if figure['limit'] is None else f'{figure["limit"]:.2f}'), what
        assert [ours, theirs] == [amount(figure[key], figure['unit']) for key in ('subject', 'baseline')], what
        least = figure['subject']['minimum'] / figure['baseline']['minimum']
        shown = f'{figure["ratio"]:.2f}' + (f' ({least:.2f})' if figure['unit'] == 'ms' else '')
        missed = figure['limit'] is not None and figure['ratio'] > figure['limit']
        assert ratio == shown + (', **missed**' if missed else ''), what


def test_compositions_against_upstream():
    upstream = figures(UPSTREAM)
    names = {what: name.strip('`') for what, name, *_ in tables(section(UPSTREAM, 'Networks'))[0][1:]}
    ((_, *rows),) = tables(section(UPSTREAM, 'The plain composition'))
    assert len(rows) == sum(name.endswith('ours / composition') for name in upstream)
    for what, composition, ours, theirs in rows:
        figure = upstream[f'{names[what]}: ours / composition']
        baseline = upstream[f'{names[what]}: ours / upstream']['baseline']['median']
        assert composition == amount(figure['baseline'], 'ms') and ours == f'{figure["ratio"]:.2f}'
        assert theirs == f'{figure["baseline"]["median"] / baseline:.2f}'


EVIDENCE = (
    '2026-11-23-evidence-of-search',
    '2026-11-23-evidence-of-networks',
    '2026-11-24-evidence-of-sepc',
    '2026-11-26-evidence-of-one-network',
    '2026-11-26-evidence-on-real-images',
    '2026-11-28-evidence-of-blocks',
)
SCORES = {
    'box/AP': 'box AP',
    'box/AP_context': 'box AP',
    'mask/AP': 'mask AP',
    'pose/AP': 'pose AP',
    'mIoU': 'mIoU',
    'accuracy/top1': 'accuracy',
}


def differences(names=EVIDENCE) -> set[tuple[str, str, str]]:
    """Score of the baseline, difference and FLOPs of every row of the reports, as the pages have them."""
    found = set()
    for name in names:
        for comparison in json.loads((FOLDER / f'{name}.json').read_text())['comparisons']:
            baseline, *others = comparison['rows']
            for row in others:
                flops = f'{row["costs"]["flops"] / baseline["costs"]["flops"]:.2f}'
                for metric in row['differences'].keys() & SCORES.keys():
                    score = f'{baseline["scores"][metric]["mean"]:.1f} {SCORES[metric]}'
                    each = row['differences'][metric]
                    if each['low'] is None:  # of fewer than three seeds
                        continue
                    mean = f'{each["mean"]:+.1f}' if each['verdict'] == 'open' else f'**{each["mean"]:+.1f}**'
                    difference = f'{mean} [{each["low"]:+.1f}, {each["high"]:+.1f}]'
                    found.add((score, difference, '' if row['test'] or 'joint' in comparison['name'] else flops))
    return found


def test_results_of_the_evidence():
    """Those of the guide are those of the raw files, those of the README some of them, losses included."""
    (_, *real), (_, *drawn) = tables(section('docs/evidence.md', 'Results'))
    results = [*real, *drawn]
    rows = {(score, difference, '' if 'of three' in flops else flops) for *_, score, difference, flops in results}
    assert len(results) == len(rows) == 77 and rows <= differences()
    known = {what: (place, f'{difference} {score.split(" ", 1)[1]}', flops.split(' ')[0])
             for what, place, score, difference, flops in results}  # fmt: skip
    ((_, *shown),) = tables(section('README.md', 'What you gain, what it costs'))
    for what, place, data, gain, training, flops, _ in shown:
        assert known[name_in_evidence(what, data, gain, training)] == (place, gain, flops)
        assert training in ('', relative_trainings().get(gain.split(']')[0] + ']'))
    assert {gain.strip('*')[0] for _, _, _, gain, *_ in shown} == {'+', '-'}


def name_in_evidence(what: str, data: str, gain: str, training: str) -> str:
    """What docs/evidence.md calls a row of the README."""
    kind = {'box AP': 'boxes', 'mask AP': 'masks'}.get(gain.split('] ')[1])
    if what == 'multi-task network':
        return f'one network at {"half " if float(training) < 0.6 else ""}the cost of three, {data}: {kind}'
    return f'{what}, {data}: {kind}' if data == 'nuclei' else what if data == 'drawn images' else f'{what}, {data}'


def relative_trainings() -> dict[str, str]:
    """Time of a training relative to what is replaced, with that of the search, by the difference that it made."""
    report = json.loads((FOLDER / '2026-11-26-evidence-on-real-images.json').read_text())['comparisons']
    of_three = sum(seconds(each['rows'][0]) for each in report if 'joint' in each['name'])
    found = {}
    for comparison in report:
        baseline, *rows = comparison['rows']
        search = sum(seconds(row) for row in rows if row['arm'].endswith('supernet'))
        for row in rows:
            spent = seconds(row) + (search if row['arm'].endswith('searched') else 0)
            ratio = spent / (of_three if 'joint' in comparison['name'] else seconds(baseline))
            for each in row['differences'].values():
                if each['low'] is not None:
                    found[f'**{each["mean"]:+.1f}** [{each["low"]:+.1f}, {each["high"]:+.1f}]'] = f'{ratio:.2f}'
    return found


def seconds(row: dict) -> float:
    return row['costs']['seconds_of_step'] * row['costs']['iterations']


@pytest.mark.parametrize(
    ('name', 'metrics'),
    [
        ('2026-11-23-evidence-of-longer-training', ('box/AP', 'box/AP_context')),
        ('2026-11-24-evidence-of-longer-training-of-poses', ('pose/AP',)),
    ],
)
def test_longer_training(name, metrics):
    """The rows of the page have the scores and differences of the raw file."""
    page = FOLDER / f'{name}.md'
    (comparison,) = json.loads(page.with_suffix('.json').read_text())['comparisons']
    scores = {
        f'{row["scores"][metric]["mean"]:.1f} ± {row["scores"][metric]["std"]:.1f}'
        for row in comparison['rows']
        for metric in metrics
    }
    wanted = {difference for _, difference, _ in differences([page.stem])}
    rows = tables(page.read_text())[1][2:]
    columns = range(1, 1 + 2 * len(metrics), 2)
    assert len(rows) == 3 and {row[column] for row in rows for column in columns} <= scores
    assert {row[column + 1] for row in rows for column in columns} <= wanted


def amount(timing: dict, unit: str) -> str:
    return f'{timing["median"] * 1e3:.0f} ms' if unit == 'ms' else f'{timing["median"]:.0f} MB'


def test_costs_of_the_readme():
    """Of a backbone's forward pass on the CPU, over both runs, and on a GPU."""
    names = {what: name.strip('`') for what, name, *_ in tables(section(UPSTREAM, 'Networks'))[0][1:]}
    runs = [figures(page) for page in (UPSTREAM, beside(UPSTREAM, 'again'))]
    measured = {
        what: spread(run[f'{names[f"{what}, forward 800x1088"]}: ours / upstream']['ratio'] for run in runs)
        for what in ('IC-ResNet-50', 'PyConvResNet-50')
    }
    ((_, *shown),) = tables(section('README.md', 'What you gain, what it costs'))
    times = [(what, time.partition(';')[0]) for what, *_, time in shown if time]  # behind it, that of exported files
    assert len(times) == 4
    for what, time in times:
        assert time == measured['IC-ResNet-50' if 'dilations' in what else 'PyConvResNet-50'], what
    on_gpu = figures(FOLDER / '2026-11-27-h100.md')
    forward, step = (on_gpu[f'IC-R50-k9 2x3x800x1344 {form}: ours / upstream']['ratio'] for form in ('eager', 'step'))
    assert f'took {forward:.2f} times as long' in readme() and f'and {step:.2f} in training' in readme()


def spread(ratios) -> str:
    ratios = sorted(ratios)
    return ' to '.join(dict.fromkeys(f'{ratio:.2f}' for ratio in (ratios[0], ratios[-1])))


def readme() -> str:
    return ' '.join((REPO / 'README.md').read_text().split())


def test_figures_of_the_readme_on_the_demo():
    """Each range is over the runs of the page; times and sizes are on it."""
    page = FOLDER / '2026-11-29-demo.md'
    _, (_, *runs), *_ = tables(page.read_text())
    ((_, *shown),) = tables(section('README.md', 'The demo'))
    assert len(shown) == len(runs[0]) - 1 == 4
    for column, (_, _, measured, threshold) in enumerate(shown, start=1):
        assert measured == spread(float(run[column]) for run in runs)
        assert float(measured.split()[0]) >= float(threshold)
    figures = set(re.findall(r'\d+ GB|\d+ minutes', readme()))
    assert len(figures) == 2 and [figure for figure in figures if figure not in page.read_text()] == []
