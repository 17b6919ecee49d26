"""The hook stops mmengine before it loads half of a checkpoint."""

import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from mmengine.registry import DATASETS, METRICS
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch import nn

from icconv_mm.app.training.hooks.checkpoint_checks import CheckpointMatchHook
from icconv_mm.checkpoints.matching import ArchitectureMismatchError
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.errors import InputError


class TTA(BaseTTAModel):
    def __init__(self, module):
        nn.Module.__init__(self)
        self.module = module

    def merge_preds(self, data_samples_list):
        raise NotImplementedError


@pytest.mark.parametrize('wrap', [lambda model: model, TTA])
def test_refuses_by_the_inner_model(wrap):
    runner = SimpleNamespace(model=wrap(nn.Linear(2, 3)))
    hook = CheckpointMatchHook(name='best.pth')
    hook.after_load_checkpoint(runner, {'state_dict': nn.Linear(2, 3).state_dict()})
    with pytest.raises(ArchitectureMismatchError, match=r'best\.pth does not fit Linear'):
        hook.after_load_checkpoint(runner, {'state_dict': nn.Linear(2, 4).state_dict()})


def test_accepts_where_told():
    runner = SimpleNamespace(model=nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)))
    weights = {**runner.model.state_dict(), '1.weight': torch.zeros(5, 3), '1.bias': torch.zeros(5)}
    CheckpointMatchHook(allow=['1']).after_load_checkpoint(runner, {'state_dict': weights})
    with pytest.raises(ArchitectureMismatchError, match=r'1\.weight \[3, 3\] in the model, \[5, 3\]'):
        CheckpointMatchHook(allow=['0']).after_load_checkpoint(runner, {'state_dict': weights})


def loop_over(kind: type, *classes: str):
    loop = object.__new__(kind)
    loop.dataloader = SimpleNamespace(dataset=SimpleNamespace(metainfo={'classes': classes}))
    return loop


@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize('resume', [True, False])
def test_classes_that_were_learned_in_another_order(library, resume):
    pytest.importorskip(library)

    def load(*classes: str) -> None:
        phase, kind = ('train', EpochBasedTrainLoop) if resume else ('test', TestLoop)
        model, cfg = nn.Linear(2, 3), Config(dict(default_scope=library))
        runner = SimpleNamespace(model=model, cfg=cfg, **{f'_{phase}_loop': loop_over(kind, *classes)})
        meta = {'dataset_meta': {'CLASSES': ('cat', 'dog')}}
        hook = CheckpointMatchHook(name='a.pth')
        hook.resume = resume
        content = {'state_dict': model.state_dict(), 'meta': meta}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr('icconv_mm.app.training.hooks.checkpoint_checks._check_resumable', lambda *_: None)
            hook.after_load_checkpoint(runner, content)

    for classes in (('cat', 'dog'), ('cat', 'dog', 'cow'), ('horse', 'cow'), ()):
        load(*classes)
    with pytest.raises(InputError, match=r"^a\.pth: 'cat' was learned with label 0, but has label 1 in t"):
        load('dog', 'cat')


def test_weights_to_begin_with_may_have_other_classes():
    pytest.importorskip('mmdet')
    model, loop = nn.Linear(2, 3), loop_over(EpochBasedTrainLoop, 'dog', 'cat')
    runner = SimpleNamespace(model=model, cfg=Config(dict(default_scope='mmdet')), _train_loop=loop)
    content = {'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': ('cat', 'dog')}}}
    CheckpointMatchHook().after_load_checkpoint(runner, content)


def test_what_the_validation_reads_is_looked_at_before_the_first_epoch(tmp_path):
    pytest.importorskip('mmdet')
    box = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)
    content = dict(images=[dict(id=1, file_name='a.jpg', width=20, height=20)], categories=[dict(id=1, name='cat')])
    for name in ('whole', 'lacking'):
        (tmp_path / f'{name}.json').write_text(json.dumps({**content, 'annotations': [box]}))
        box.pop('area', None)
    file, prefix = str(tmp_path / 'whole.json'), dict(img='')
    data = dict(
        type='mmdet.CocoDataset', ann_file=file, data_prefix=prefix, metainfo={'classes': ('cat',)}, pipeline=[]
    )
    lacking = str(tmp_path / 'lacking.json')
    loop = loop_over(ValLoop)
    loop.dataloader.dataset = DATASETS.build(data)
    loop.evaluator = SimpleNamespace(metrics=[METRICS.build(dict(type='mmdet.CocoMetric', ann_file=lacking))])
    cfg = Config(dict(default_scope='mmdet', val_evaluator=dict(ann_file=lacking)))
    runner = SimpleNamespace(model=nn.Linear(2, 3), cfg=cfg, _val_loop=loop, _train_loop=None)
    with pytest.raises(
        DatasetError, match=r"^val_evaluator\.ann_file: .*lacking\.json: annotations\[0\]: no field 'area'"
    ):
        CheckpointMatchHook().before_run(runner)


def test_classes_of_upstreams_datasets_are_in_their_own_order():
    """ImageNet's have two cranes."""
    from mmpretrain.datasets import ImageNet

    names = ImageNet.METAINFO['classes']
    assert len(set(names)) < len(names)
    model, loop = nn.Linear(2, 3), loop_over(TestLoop, *names)
    runner = SimpleNamespace(model=model, cfg=Config(dict(default_scope='mmpretrain')), _test_loop=loop)
    content = {'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': names}}}
    CheckpointMatchHook().after_load_checkpoint(runner, content)
