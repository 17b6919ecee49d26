"""docs/performance.md: the table of limits is what the benchmark holds figures against."""

from pages import section, tables

from icconv_workshop.benchmark import Options
from icconv_workshop.benchmark.suites import backbone, layers, models


def test_limits_are_those_of_the_benchmark(monkeypatch, published_patterns):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(published_patterns.parent))
    (_, *rows), *_ = tables(section('docs/performance.md', 'Limits'))
    cases = list(backbone.cases(Options()))
    in_rows = [limit for case in cases for limit in (case.limit, case.memory) if limit is not None]
    if not any(case.dtype == 'bfloat16' for case in cases):
        in_rows.append(backbone.INCEPTION['IC-R50-k9'][3][-1].limit)
    on_gpu = [each.limit for each in backbone.ON_GPU]
    first, second, third = layers.PYCONV_LIMITS.values()
    assert second == third  # which share a row
    expected = [*in_rows, models.AS_SHIPPED, *on_gpu, layers.INCEPTION_LIMIT, *first.values(), *second.values()]
    assert sorted(float(limit) for *_, time, memory in rows for limit in (time, memory) if limit) == sorted(expected)
