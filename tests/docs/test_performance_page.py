"""The table of limits in docs/performance.md is what the benchmark holds figures against."""

import re

from benchmarks import Options
from benchmarks.suites import backbone, layers


def test_limits(repo, monkeypatch, shared):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(shared))
    rows = re.findall(r'^\| (.+?) \| (\d\.\d\d) \|', (repo / 'docs/performance.md').read_text(), flags=re.MULTILINE)
    networks = [case.limit for case in backbone.cases(Options())]
    on_gpu = [limit for *_, limit in backbone.ON_GPU]
    first, second, third = layers.PYCONV_LIMITS.values()
    assert second == third  # which share a row
    expected = [*networks, *on_gpu, layers.INCEPTION_LIMIT, *first.values(), *second.values()]
    assert sorted(float(limit) for _, limit in rows) == sorted(expected)
