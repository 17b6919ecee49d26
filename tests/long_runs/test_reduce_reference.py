"""The reference data in the repository: small, nobody else's, and a sample of the full set."""

import json

import numpy as np
import pytest
import reduce_reference
from reference import REDUCED, SHARED, Reference, from_seed


def test_sampled_values_are_compared_where_they_were_taken(tmp_path):
    full, meta = np.arange(60 * 70, dtype=np.float32).reshape(60, 70), {'source': 'x', 'variants': [], 'ties': 'none'}
    seeded = from_seed('a', 'noise', (40, 60))
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full/a.json').write_text(json.dumps(meta))
    np.savez(tmp_path / 'full/a.npz', **{'in/x': full, 'out/x': full, 'out/udp1/x': full, 'noise': seeded})
    _, keys, results = reduce_reference.FAMILIES['pose_ae']
    reduce_reference.reduce_case(tmp_path / 'full/a.json', tmp_path / 'a.json', keys, results)
    reduced, whole = Reference(tmp_path, 'a'), Reference(tmp_path / 'full', 'a')
    assert set(reduced.meta) == {'source', 'variants', 'sampled', 'seeded'}
    assert reduced.names == ['in/x', 'out/x', 'noise']
    np.testing.assert_array_equal(reduced['in/x'], full)
    np.testing.assert_array_equal(reduced['noise'], seeded)
    with np.load(tmp_path / 'a.npz') as stored:
        assert 'noise' not in stored
    with pytest.raises(AssertionError, match='out/x is sampled'):
        reduced['out/x']
    for reference, count in ((reduced, len(full.reshape(-1)[::11])), (whole, full.size)):
        found, stored = reference.pair('out/x', full)
        assert stored.size == count
        np.testing.assert_array_equal(found, stored)
        assert reference.deviation('out/x', full) == 0 < reference.deviation('out/x', full + 1)
        with pytest.raises(AssertionError, match='out/x'):
            reference.pair('out/x', full.T)


@pytest.mark.parametrize(
    ('shape', 'step'), [((1, 64, 16, 24), 29), ((2048, 2), 5), ((1, 30, 7, 11), 13), ((4, 13056, 1), 53)]
)
def test_every_row_and_column_has_a_part_in_the_sample(shape, step):
    assert reduce_reference.step_of(shape) == step
    taken = np.unravel_index(np.arange(0, np.prod(shape), step), shape)
    assert all(len(np.unique(axis)) == min(side, len(axis)) for axis, side in zip(taken, shape))


def test_it_is_small_and_nobody_elses(repo):
    files = [path for path in REDUCED.rglob('*') if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8e6
    assert {path.suffix for path in files} == {'.json', '.npz'}
    from_patterns = {path.stem for path in (REDUCED / 'icconv').rglob('*') if path.is_file()}
    assert from_patterns == {f'ic_resnet{depth}_selfmade' for depth in (18, 34, 50)}
    page = (repo / 'tests/data/README.md').read_text()
    assert all(f'| `{folder.name}` |' in page for folder in REDUCED.iterdir())


if (SHARED / 'parity').is_dir():

    def test_it_is_what_the_full_set_gives(tmp_path):
        for written in reduce_reference.reduce_all(SHARED / 'parity', tmp_path):
            here = REDUCED / written.relative_to(tmp_path)
            assert here.read_text() == written.read_text()
            again, stored = Reference(written.parent, written.stem), Reference(here.parent, here.stem)
            assert again.names == stored.names
            for name in again.names:
                np.testing.assert_array_equal(again._tensors[name], stored._tensors[name], err_msg=name)
