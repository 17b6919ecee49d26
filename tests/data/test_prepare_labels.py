"""What is written of a set: nothing is lost or taken for something else without a word."""

from icconv_mm.data.prepare import name_of

# --- names of runs ---


def test_runs_are_named_after_their_set(tmp_path):
    (tmp_path / 'set.v1').mkdir()
    names = [name_of(tmp_path / place) for place in ('set.v1', 'A/data.yaml', 'A/annotations.json', 'A/train.json')]
    assert names == ['set.v1', 'A', 'A', 'train']
