import pytest
from benchmarks import Options
from benchmarks.suites import multitask

for library in ('mmdet', 'mmseg', 'mmpose'):
    pytest.importorskip(library)
pytestmark = pytest.mark.slow


def test_one_network_and_four_give_the_same(monkeypatch):
    """The suite compares before it times; at another scale there is no limit."""
    compared = []
    check_equal = multitask.contest.check_equal
    monkeypatch.setattr(multitask.contest, 'check_equal', lambda *args: compared.append(args) or check_equal(*args))
    (figure,) = multitask.run(Options(repeats=1, scale=0.5, only='miniature'))
    (label, one, four, _), *others = compared
    assert not others and len(one) == len(four) > 8
    assert figure.name == label and figure.limit is None and figure.notes['picture'] == '64x64'
