import pytest

from icconv_tools import benchmark
from icconv_tools.benchmark.suites import fpt

NECK = {'in_channels': [8] * 4, 'out_channels': 16, 'drop_prob': 0.0, 'norm_cfg': {'type': 'GN', 'num_groups': 4}}


@pytest.fixture
def small(monkeypatch):
    sizes = fpt.Sizes(neck=NECK, timed={(64, 96): 1.0})
    memory = {(sizes.small, False): 100.0, (sizes.large, False): 390.0, (sizes.small, True): 4000.0}
    monkeypatch.setattr(fpt, 'peak_memory', lambda size, options, neck, literal=False: memory[size, literal])
    return sizes


def test_both_forms_are_timed_after_they_agree(small):
    figures = {figure.name: figure for figure in fpt.run(benchmark.Options(repeats=2, warmup=1), small)}
    timed = figures['neck / literal form']
    assert timed.subject.repeats == 2 and timed.limit == 1.0 and timed.unit == 'ms'
    growth = figures['memory by image']
    assert growth.ratio == pytest.approx(3.9) and growth.met and growth.unit == 'MB'
    assert figures["neck / mmdet's FPN"].baseline.repeats == 2
    large = figures['memory / literal form']  # the last of this name: the large image
    assert large.notes == {'image': '800x1088', 'literal': 'computed'}
    assert large.baseline.median == pytest.approx(390 + fpt.kept_by_literal_form(small.large))


def test_memory_of_the_literal_form_is_computed():
    """At least what the finest level keeps of itself (two softmaxes, their mixture) and of the next one (four)."""
    assert fpt.kept_by_literal_form((800, 1088)) > 4e-6 * (3 + 5) * 54400 * 13600
    ratio = fpt.kept_by_literal_form((800, 1088)) / fpt.kept_by_literal_form((400, 544))
    assert ratio == pytest.approx(16, rel=0.05)


def test_another_result_is_not_timed(small, monkeypatch):
    right = fpt._euclidean_form
    monkeypatch.setattr(fpt, '_euclidean_form', lambda *args: right(*args).flip(-1))
    with pytest.raises(benchmark.Disagreement, match='neck against literal form: result 0 is off by'):
        fpt.run(benchmark.Options(repeats=1), small)


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own():
    """At full width, where the literal form keeps tens of megabytes."""
    options = benchmark.Options(threads=1)
    lean, literal = (fpt.peak_memory((200, 272), options, fpt.SETTINGS, literal) for literal in (False, True))
    assert 10 < lean < 1000
    kept = fpt.kept_by_literal_form((200, 272))
    assert literal - lean > 0.5 * kept


@pytest.mark.slow
def test_a_failed_measurement_says_why():
    with pytest.raises(RuntimeError, match='measuring the memory of a 64x64 image failed'):
        fpt.peak_memory((64, 64), benchmark.Options(device='nowhere'), fpt.SETTINGS)
