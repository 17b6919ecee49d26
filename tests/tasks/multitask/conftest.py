"""A tiny drawn set, and single-task recipes with the joint network that has the same heads."""

import copy

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpose')

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from multitask_recipes import MULTITASK

from icconv_mm.config_tree import walk_dicts
from icconv_tools.miniature import MiniatureOptions, ensure_miniature


@pytest.fixture(scope='session')
def miniature(tmp_path_factory):
    """The root of a set of eight and four images; one has a crowd, one has nobody."""
    root = tmp_path_factory.mktemp('joint') / 'miniature'
    ensure_miniature(root, MiniatureOptions(train=8, val=4, size=128, seed=5))
    return root


@pytest.fixture
def load(repo, miniature):
    """A config of the repository that reads the tiny set."""

    def loaded(name: str) -> Config:
        cfg = Config.fromfile(str(repo / 'configs' / name))
        init_default_scope(cfg.default_scope)
        for node in walk_dicts(cfg):
            for key, value in node.items():
                if isinstance(value, str) and value.startswith('data/miniature/'):
                    node[key] = value.replace('data/miniature/', f'{miniature}/')
        return cfg

    return loaded


@pytest.fixture
def joint_cfg(load):
    return load(MULTITASK)


@pytest.fixture
def batch():
    """The first items of a loader's dataset, collated."""

    def first_items(cfg: Config, phase: str = 'train', count: int = 3) -> dict:
        dataset = DATASETS.build(copy.deepcopy(cfg[f'{phase}_dataloader'].dataset))
        return pseudo_collate([dataset[i] for i in range(count)])

    return first_items


@pytest.fixture
def joint_model(joint_cfg):
    """The joint network of the miniature recipe, with random weights."""
    init_default_scope('mmengine')
    model = MODELS.build(copy.deepcopy(joint_cfg.model))
    model.init_weights()
    return model
