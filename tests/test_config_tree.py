"""Every dict of a config and every dataset below wrappers is found."""

from mmengine.config import Config
from mmengine.dataset import BaseDataset, RepeatDataset
from torch.utils.data import ConcatDataset

from icconv_mm.config_tree import datasets_in, datasets_of, leaf_datasets, walk, walk_dicts


def test_every_dict_of_a_config():
    """Also of a ``Config``, which is no dict itself, and in lists and tuples; changes are seen on the way down."""
    cfg = Config({'a': {'n': 1, 'b': [{'n': 2}, ({'n': 3},)]}, 'c': 4})
    for part in (cfg, cfg.a):
        assert [node.n for node in walk_dicts(part) if 'n' in node] == [1, 2, 3]
    for node in walk_dicts(cfg):
        node.pop('b', None)
    assert cfg.a == {'n': 1}


def test_locations_of_a_config():
    """As the command line calls them."""
    cfg = Config({'a': {'map': {0: {'n': 1}}, 'b': [3, {'n': 2}]}})
    assert [location for location, _ in walk(cfg)] == ['', 'a', 'a.map', 'a.map.0', 'a.b.1']
    assert [location for location, _ in walk(cfg.a.b, 'a.b')] == ['a.b.1']


def test_datasets_of_phases():
    """With their locations, and what a change in place needs: the config's own dicts."""
    inner = {'n': 1, 'pipeline': [{'type': 'A', 'transforms': [{'type': 'B'}]}]}
    wrapped = {'type': 'RepeatDataset', 'dataset': inner}
    cfg = Config({'train_dataloader': {'dataset': wrapped}, 'val_dataloader': None, 'test_dataloader': {'dataset': {}}})
    datasets = datasets_of(cfg)
    assert {phase: [(node.location, node.is_leaf) for node in nodes] for phase, nodes in datasets.items()} == {
        'train': [('train_dataloader.dataset', False), ('train_dataloader.dataset.dataset', True)],
        'val': [],
        'test': [('test_dataloader.dataset', True)],
    }
    _, leaf = datasets['train']
    dataset = cfg.train_dataloader.dataset.dataset
    assert leaf.cfg is dataset and leaf.pipeline is dataset.pipeline
    assert [node.kind for node in leaf.transforms] == ['A', 'B'] and leaf.transforms[0].cfg is dataset.pipeline[0]
    assert leaf.transforms[1].location == 'train_dataloader.dataset.dataset.pipeline.0.transforms.0'
    assert datasets['test'][0].pipeline == [] and datasets['test'][0].transforms == ()


def test_datasets_below_wrappers():
    """By the same names in the config and in what is built of it."""

    class Images(BaseDataset):
        def load_data_list(self):
            return [{'img_path': 'a.jpg'}]

    first, second = Images(), Images()
    built = ConcatDataset([RepeatDataset(first, times=2), second])
    leaves = {'type': 'First', 'ann_file': 'a'}, {'type': 'Second'}
    cfg = {'type': 'ConcatDataset', 'datasets': [{'type': 'RepeatDataset', 'dataset': leaves[0]}, leaves[1]]}
    names = ['d.datasets.0.dataset', 'd.datasets.1']
    assert list(leaf_datasets(cfg, 'd')) == list(zip(names, leaves))
    assert list(leaf_datasets(built, 'd')) == list(zip(names, (first, second)))
    assert [name for name, _ in datasets_in(built, 'd')] == ['d', 'd.datasets.0', *names]
    assert list(leaf_datasets(leaves[1], 'd')) == [('d', leaves[1])]
