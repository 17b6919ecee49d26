"""The example of docs/multitask.md is a config that trains and is evaluated."""

import os
import re

import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpose')
pytest.importorskip('mmpretrain')

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, MODELS, init_default_scope

from icconv_tools.miniature import MiniatureOptions, ensure_miniature


@pytest.fixture
def example(repo, tmp_path, monkeypatch):
    """The config of the page beside a tiny set and its labels."""
    text = (repo / 'docs/multitask.md').read_text().partition('## Custom tasks')[2]
    (code,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    assert len(code.splitlines()) < 40
    os.symlink(repo / 'configs', tmp_path / 'configs')
    (tmp_path / 'example.py').write_text(code)
    ensure_miniature(tmp_path / 'data/miniature', MiniatureOptions(train=4, val=2, size=64))
    for name, count in (('people.txt', 4), ('people_val.txt', 2)):
        (tmp_path / name).write_text(''.join(f'{i:06d}.jpg {i % 2}\n' for i in range(1, count + 1)))
    monkeypatch.chdir(tmp_path)
    init_default_scope('mmengine')
    return Config.fromfile('example.py')


def test_the_example_of_a_new_task_trains_and_is_evaluated(example):
    model = MODELS.build(example.model)
    train, val = (DATASETS.build(example[f'{phase}_dataloader'].dataset) for phase in ('train', 'val'))
    data = model.data_preprocessor(pseudo_collate([train[i] for i in range(2)]), True)
    losses = model(**data, mode='loss')
    model.parse_losses(losses)[0].backward()
    assert losses['people.loss'] > 0
    assert model.tasks.people.head.fc.weight.grad.abs().max() > 0
    evaluator = Evaluator(list(example.val_evaluator))
    evaluator.dataset_meta = val.metainfo
    batch = pseudo_collate([val[i] for i in range(2)])
    with torch.no_grad():
        evaluator.process(model.eval().val_step(batch), batch)
    assert 0 <= evaluator.evaluate(2)['people/accuracy/top1'] <= 100
