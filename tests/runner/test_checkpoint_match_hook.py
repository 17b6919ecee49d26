"""The hook stops mmengine before it loads half of a checkpoint."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseTTAModel
from torch import nn

from icconv_mm.checkpoints.matching import ArchitectureMismatchError
from icconv_mm.runner.hooks import CheckpointMatchHook


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
