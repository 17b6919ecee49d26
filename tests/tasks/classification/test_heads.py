import pytest
import torch

pytest.importorskip('mmpretrain')

from icconv_mm.errors import InputError
from icconv_mm.registry import MODELS


def make_head(**settings):
    return MODELS.build({'type': 'icconv_mm.DropoutLinearClsHead', 'num_classes': 3, 'in_channels': 64} | settings)


def test_drops_features_in_training_alone():
    head = make_head(dropout_ratio=0.5, loss=dict(type='mmpretrain.CrossEntropyLoss'))
    feats = (torch.ones(4, 64),)
    dropped = head.train().pre_logits(feats)
    assert 0 < (dropped == 0).float().mean() < 1 and dropped.max() == 2
    assert torch.equal(head.eval().pre_logits(feats), feats[0])
    torch.testing.assert_close(head(feats), head.fc(feats[0]))
    assert list(head.state_dict()) == ['fc.weight', 'fc.bias']


def test_errors():
    with pytest.raises(InputError, match='dropout_ratio must be from 0 to 1, got 2'):
        make_head(dropout_ratio=2, loss=dict(type='mmpretrain.CrossEntropyLoss'))
