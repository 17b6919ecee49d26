import pytest

from icconv_tools.benchmark import Options
from icconv_tools.benchmark.suites import multitask

for library in ('mmdet', 'mmseg', 'mmpose'):
    pytest.importorskip(library)
pytestmark = pytest.mark.slow


def test_one_network_and_four_give_the_same(monkeypatch):
    """The suite compares before it times; at another scale there is no limit."""
    compared = []
    check_equal = multitask.harness.check_equal
    monkeypatch.setattr(multitask.harness, 'check_equal', lambda *args: compared.append(args) or check_equal(*args))
    figures = list(multitask.run(Options(repeats=1, scale=0.5, only='miniature')))
    assert ['mirrored' in figure.name for figure in figures] == [False, True, False]
    assert figures[2].name.endswith('four recipes') and len(compared) == 2  # recipes have weights of their own
    for figure, (label, one, four, _) in zip(figures, compared):
        assert len(one) == len(four) > 8
        assert figure.name == label and figure.limit is None and figure.notes['image'] == '64x64'
