"""docs/performance.md: the table of limits is what the benchmark holds figures against."""

import re

from benchmarks import Options
from benchmarks.suites import backbone, layers
from pages import section, tables


def test_limits(monkeypatch, shared):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(shared))
    (_, *rows), _ = tables(section('docs/performance.md', 'Limits'))
    networks = [case.limit for case in backbone.cases(Options())]
    on_gpu = [limit for *_, limit in backbone.ON_GPU]
    first, second, third = layers.PYCONV_LIMITS.values()
    assert second == third  # which share a row
    expected = [*networks, *on_gpu, layers.INCEPTION_LIMIT, *first.values(), *second.values()]
    assert sorted(float(limit) for _, limit in rows) == sorted(expected)


def test_measured_limits_are_these():
    (_, *limits), _ = tables(section('docs/performance.md', 'Limits'))
    ((_, *measured),) = tables(section('docs/measurements/2026-11-21-cpu.md', 'Limits'))
    assert [row[:2] for row in measured] == [row for row in limits if 'GPU' not in row[0]][: len(measured)]
    for what, limit, *figures in measured:
        for figure in figures:
            missed = max(float(ratio) for ratio in re.findall(r'(\d\.\d\d) \(', figure)) > float(limit)
            assert missed == ('**missed**' in figure), (what, figure)
