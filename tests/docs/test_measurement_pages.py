"""docs/measurements: each page says how it was measured and keeps the raw figures; the README quotes the pages."""

import json
import re
import statistics
from collections import defaultdict
from pathlib import Path

import pytest
from pages import REPO, section, tables

from icconv_tools.benchmark.report import write_figures
from icconv_tools.benchmark.timing import Options
from icconv_tools.evidence.differences import paired
from icconv_tools.evidence.plots import stage_means

FOLDER = REPO / 'docs/measurements'
FACTS = ['date', 'machine', 'versions', 'command', 'raw']
# Older than the rule that the raw file is kept. No page may join them.
WITHOUT_RAW = {
    '2026-11-20-fpt.md',
    '2026-11-20-h200.md',
    '2026-11-20-miniature.md',
    '2026-11-20-search.md',
    '2026-11-20-sepc.md',
    '2026-11-21-cpu.md',
}
RAW = {'date', 'command', 'machine', 'versions', 'options', 'figures'}  # as tools/benchmark.py writes it


def problems(page) -> list[str]:
    """What a page of measurements lacks."""
    first, *_ = tables(page.read_text()) or [[]]
    facts = {cells[0]: cells[1] for cells in first if len(cells) == 2}
    found = [f'no {name}' for name in FACTS if not facts.get(name)]
    if page.name[:10] not in facts.get('date', ''):
        found.append(f'named {page.name}, dated {facts.get("date")}')
    links = re.findall(r'\]\(([\w.-]+\.json)\)', facts.get('raw', ''))
    if not links and page.name not in WITHOUT_RAW:
        found.append('no raw file')
    for link in links:
        if not (page.parent / link).is_file():
            found.append(f'{link} does not exist')
            continue
        content = json.loads((page.parent / link).read_text())
        lacks = RAW - set(content) if isinstance(content, dict) and 'figures' in content else set()
        found += [f'{link} has no {name}' for name in sorted(lacks)]
    return found


@pytest.mark.parametrize('name', sorted(page.name for page in FOLDER.glob('2*.md')))
def test_pages(name):
    assert problems(FOLDER / name) == []


def test_index():
    (_, *rows), *_ = tables((FOLDER / 'README.md').read_text())
    pages = {re.match(r'\[(.+)\]\(\1\)', cells[0]).group(1) for cells in rows}
    assert pages == {page.name for page in FOLDER.glob('*.md')} - {'README.md'}
    raw = {link for cells in rows for link in re.findall(r'\]\(([\w.-]+\.json)\)', cells[2])}
    assert raw == {path.name for path in FOLDER.glob('*.json')}


def test_raw_files_are_what_the_benchmark_writes(tmp_path):
    write_figures([], Options(), tmp_path / 'it.json', 'the command')
    assert set(json.loads((tmp_path / 'it.json').read_text())) == RAW


PAGE = '# It\n\n| | |\n|---|---|\n| date | 2027-01-31 |\n| machine | M |\n| versions | V |\n| command | `c` |\n'


@pytest.mark.parametrize(
    ('page', 'raw', 'found'),
    [
        (PAGE + '| raw | [it](2027-01-31-it.json) |\n', dict.fromkeys(RAW, ''), []),
        (PAGE + '| raw | [it](2027-01-31-it.json) |\n', {'figures': [], 'date': ''}, ['command', 'machine']),
        (PAGE + '| raw | none was kept |\n', {}, ['no raw file']),
        (PAGE + '| raw | [it](other.json) |\n', {}, ['other.json does not exist']),
        (PAGE.replace('| machine | M |\n', '') + '| raw | [it](2027-01-31-it.json) |\n', {}, ['no machine']),
        (PAGE.replace('01-31', '02-01') + '| raw | [it](2027-01-31-it.json) |\n', {}, ['dated 2027-02-01']),
        ('# It\n', {}, ['no date', 'no command', 'no raw file']),
    ],
)
def test_what_a_page_lacks_is_found(tmp_path, page, raw, found):
    (tmp_path / '2027-01-31-it.md').write_text(page)
    (tmp_path / '2027-01-31-it.json').write_text(json.dumps(raw))
    got = problems(tmp_path / '2027-01-31-it.md')
    assert bool(got) == bool(found) and all(any(part in line for line in got) for part in found), got


UPSTREAM = FOLDER / '2026-11-24-upstream.md'
BEFORE = FOLDER / '2026-11-23-upstream.md'
BFLOAT16 = FOLDER / '2026-11-24-bfloat16.md'
COMPARED = FOLDER / '2026-11-24-weights-compared.md'
LATER = ('2026-11-23-inference-form', '2026-11-24-inference-form')


def figures(page: Path, networks: tuple[str, ...] = ('',)) -> dict[str, dict]:
    """The figures of the raw file by name, of these networks."""
    content = json.loads(page.with_suffix('.json').read_text())
    return {figure['name']: figure for figure in content['figures'] if figure['name'].startswith(networks)}


def beside(page: Path, name: str) -> Path:
    """Another raw file of a page, as if it had a page of its own."""
    return page.with_name(f'{page.stem}-{name}.md')


def others() -> dict[str, dict]:
    """What that page has of its second raw file, where inception convolutions had other patterns."""
    return figures(beside(COMPARED, 'others'), ('ResNet-50', 'PyConvResNet-50'))


@pytest.mark.parametrize(
    ('page', 'heading', 'upstream'),
    [
        *((page, 'Networks', figures(page)) for page in (UPSTREAM, BEFORE, BFLOAT16, COMPARED)),
        *((FOLDER / f'{name}.md', 'Networks', figures(FOLDER / f'{name}.md')) for name in LATER),
        (COMPARED, 'Other networks', others()),
        (UPSTREAM, 'Whole models', figures(beside(UPSTREAM, 'models'))),
    ],
    ids=lambda value: getattr(value, 'stem', '' if isinstance(value, dict) else value),
)
def test_networks_against_upstream(page, heading, upstream):
    ((_, *rows),) = tables(section(page, heading))
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


@pytest.mark.parametrize('page', [UPSTREAM, BEFORE], ids=lambda page: page.stem)
def test_limits_that_one_of_two_runs_missed(page):
    first, again = figures(page), figures(beside(page, 'again'))
    names = {what: name.strip('`') for what, name, *_ in tables(section(page, 'Networks'))[0][1:]}
    ((_, *rows),) = tables(section(page, 'A second run'))
    expected = {}
    for name, second in again.items():
        limit, ratios = second['limit'], (first[name]['ratio'], second['ratio'])
        if limit is not None and max(ratios) > limit:
            expected[name] = [f'{number:.2f}' for number in (limit, *ratios)]
    assert {f'{names[what]}: ours / upstream': numbers for what, *numbers in rows} == expected


@pytest.mark.parametrize('page', [UPSTREAM, BEFORE], ids=lambda page: page.stem)
def test_compositions_against_upstream(page):
    upstream = figures(page)
    names = {what: name.strip('`') for what, name, *_ in tables(section(page, 'Networks'))[0][1:]}
    ((_, *rows),) = tables(section(page, 'The plain composition'))
    assert len(rows) == sum(name.endswith('ours / composition') for name in upstream)
    for what, composition, ours, theirs in rows:
        figure = upstream[f'{names[what]}: ours / composition']
        baseline = upstream[f'{names[what]}: ours / upstream']['baseline']['median']
        assert composition == amount(figure['baseline'], 'ms') and ours == f'{figure["ratio"]:.2f}'
        assert theirs == f'{figure["baseline"]["median"] / baseline:.2f}'


@pytest.mark.parametrize(
    ('name', 'unit', 'digits'), [('overhead', 1e-6, 1), ('overhead-of-levels', 1e-6, 1), ('norms', 1e-3, 2)]
)
def test_operators_alone(name, unit, digits):
    """Every figure of the raw file is a row: medians and minima of both, their difference or ratio."""
    page = FOLDER / f'2026-11-22-{name}.md'
    figures = json.loads(page.with_suffix('.json').read_text())['figures']
    rows = tables(page.read_text())[1][1:]
    for figure, (what, *cells) in zip(figures, rows, strict=True):
        shown = [
            f'{figure[key]["median"] / unit:.{digits}f} ({figure[key]["minimum"] / unit:.{digits}f})'
            for key in ('subject', 'baseline')
        ]
        subject, baseline = (figure[key]['median'] for key in ('subject', 'baseline'))
        if name.startswith('overhead'):
            more = f'{(subject - baseline) / unit:.1f}'
            missed = 'MISSED' in figure['notes']['on top']
            wanted = [*shown, more + (', **missed**' if missed else '')]
        else:
            limit = '' if figure['limit'] is None else f'{figure["limit"]:.2f}'
            wanted = [str(figure['notes']['batch']), *shown, f'{subject / baseline:.2f}', limit]
        assert what == figure['name'] and cells == wanted


EVIDENCE = ('2026-11-23-evidence-of-search', '2026-11-23-evidence-of-networks', '2026-11-24-evidence-of-sepc')
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
                    mean = f'{each["mean"]:+.1f}' if each['verdict'] == 'open' else f'**{each["mean"]:+.1f}**'
                    difference = f'{mean} [{each["low"]:+.1f}, {each["high"]:+.1f}]'
                    found.add((score, difference, '' if row['test'] or 'joint' in comparison['name'] else flops))
    return found


def test_results_of_the_evidence():
    """Those of the guide are those of the raw files, those of the README some of them, losses included."""
    ((_, *results),) = tables(section('docs/evidence.md', 'Results'))
    rows = {(score, difference, '' if 'of the three' in flops else flops) for *_, score, difference, flops in results}
    assert len(results) == len(rows) == 29 and rows <= differences()
    ((_, *shown),) = tables(section('README.md', 'Gains'))
    assert all(row in results for row in shown)
    assert {row[3].strip('*')[0] for row in shown} == {'+', '-'}


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


def test_planted_distances():
    page = FOLDER / '2026-11-23-evidence-of-planted-distances.md'
    chosen = defaultdict(dict)
    for search in json.loads(page.with_suffix('.json').read_text())['searches']:
        for stage, mean in stage_means(search['layers']).items():
            chosen[stage, search['distances'][0]][search['seed']] = mean
    (_, *rows) = tables(page.read_text())[1]
    for stage, *means, shown in rows:
        seeds = [[chosen[stage, distance][seed] for seed in range(5)] for distance in (16, 24, 32)]
        assert means == [f'{statistics.fmean(each):.2f} ± {statistics.pstdev(each):.2f}' for each in seeds]
        found = paired(seeds[2], seeds[0])
        mean = f'{found.mean:+.2f}' if found.verdict == 'open' else f'**{found.mean:+.2f}**'
        assert shown == f'{mean} [{found.low:+.2f}, {found.high:+.2f}]'


def amount(timing: dict, unit: str) -> str:
    return f'{timing["median"] * 1e3:.0f} ms' if unit == 'ms' else f'{timing["median"]:.0f} MB'


def test_costs_of_the_readme():
    """From the pages of the CPU, against upstream's networks, and of the H200, against our dense one."""
    networks = [row for name in ('Networks', 'Whole models') for row in tables(section(UPSTREAM, name))[0][1:]]
    compositions = {what: ratio for what, *_, ratio in tables(section(UPSTREAM, 'The plain composition'))[0][1:]}
    runs = [figures(page) for page in (UPSTREAM, beside(UPSTREAM, 'again'), beside(UPSTREAM, 'models'))]
    measured = {}
    for what, name, *_ in networks:
        name = f'{name.strip("`")}: ours / upstream'
        measured[what] = (spread(run[name]['ratio'] for run in runs if name in run), compositions.get(what, ''))
    forward, _, training = tables(section('docs/measurements/2026-11-20-h200.md', 'A backbone'))[0][1:]
    for what, row in {'forward': forward, 'training step': training}.items():
        dense, _, reference = ([float(ms) for ms in cell.split(',')] for cell in row[1:4])
        ratios = spread(float(ratio) for ratio in row[4].split(','))
        composition = spread(ours / theirs for ours, theirs in zip(reference, dense))
        measured[f'IC-ResNet-50, {what} 2x3x800x1344, bfloat16'] = (ratios, composition)
    deployed = [run['IC-R50-k9 1x3x800x1088 deployed: ours / upstream']['ratio'] for run in runs[:2]]
    assert f'{spread(deployed)} of theirs' in section('README.md', 'Speed')
    ((_, *costs),) = tables(section('README.md', 'Speed'))
    assert {what: (here, composition) for what, _, here, composition in costs}.items() <= measured.items()
    assert {machine for _, machine, *_ in costs} == {'two CPU cores', 'H200'} and len(costs) >= 8


def spread(ratios) -> str:
    ratios = sorted(ratios)
    return ' to '.join(dict.fromkeys(f'{ratio:.2f}' for ratio in (ratios[0], ratios[-1])))


def test_figures_of_the_readme_on_the_demo():
    """The table has those of the raw report; times and sizes are on the page."""
    page = FOLDER / '2026-11-23-demo.md'
    measured = {}
    for each in json.loads(page.with_suffix('.json').read_text()):
        measured.setdefault(each['metric'], []).append(each)
    ((_, *shown),) = tables(section('README.md', 'Demo'))
    assert len(shown) == len(measured) == 4
    for _, metric, value, threshold in shown:
        first, *others = measured[metric]
        at_scales = ''.join(f'; {each["value"]:.3f} at 3 scales' for each in others)
        assert [value, threshold] == [f'{first["value"]:.3f}{at_scales}', f'{first["threshold"]:.2f}']
    demo = ' '.join(section('README.md', 'Demo').split())
    figures = re.findall(r'\d+ GB|\d+ minutes', demo)
    assert len(figures) == 3 and [figure for figure in figures if figure not in page.read_text()] == []


def test_one_network_and_four():
    """The table of the page has the mean of every metric over the seeds, and the seconds."""
    page = FOLDER / '2026-11-22-joint-and-separate.md'
    content = json.loads(page.with_suffix('.json').read_text())
    values, seconds = defaultdict(list), defaultdict(lambda: defaultdict(float))
    for each in content['figures']:
        kind = 'one' if each['network'] == 'joint' else 'four'
        metric = each['metric'] + (', 3 scales' if each['threshold'] is None else '')
        values[metric, kind].append(each['value'])
        seconds[kind][each['seed']] += each['seconds'] or 0
    (_, (_, *rows), *_) = tables(page.read_text())
    *metrics, (_, *times) = rows
    assert len(metrics) == len(values) // 2 == 5
    for metric, one, mean, four, other_mean, difference in metrics:
        means = []
        for kind, shown, shown_mean in (('one', one, mean), ('four', four, other_mean)):
            assert shown == ', '.join(f'{value:.3f}' for value in values[metric, kind])
            means.append(sum(values[metric, kind]) / len(values[metric, kind]))
            assert shown_mean == f'{means[-1]:.3f}'
        assert difference == f'{means[0] - means[1]:+.3f}'
    one, four = (list(seconds[kind].values()) for kind in ('one', 'four'))
    assert times[0] == ', '.join(f'{value:.0f}' for value in one)
    assert times[2] == ', '.join(f'{value:.0f}' for value in four)
    assert times[4] == f'{sum(one) / sum(four):.2f} of it'
