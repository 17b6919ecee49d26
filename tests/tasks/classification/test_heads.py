"""Classifiers for mmpretrain."""

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


def classifier(num_classes):
    return MODELS.build(
        dict(
            type='icconv_mm.MixedClassifier',
            backbone=dict(
                type='icconv_mm.ICResNet', depth=18, pattern='geometric_d4', base_channels=8, out_indices=(3,)
            ),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(
                type='icconv_mm.DropoutLinearClsHead',
                num_classes=num_classes,
                in_channels=64,
                loss=dict(type='mmpretrain.CrossEntropyLoss', use_soft=True),
            ),
            train_cfg=dict(augments=dict(type='mmpretrain.CutMix', alpha=1.0)),
            data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', num_classes=1000),  # ImageNet's, in a recipe
        )
    )


@pytest.mark.parametrize('num_classes', [1000, 10, 3])
def test_mixed_labels_have_the_classes_of_the_head(num_classes):
    from mmpretrain.structures import DataSample

    model = classifier(num_classes)
    samples = [DataSample().set_gt_label(label) for label in (0, 2)]
    batch = model.data_preprocessor({'inputs': torch.rand(2, 3, 64, 64), 'data_samples': samples}, training=True)
    for sample in batch['data_samples']:
        assert sample.gt_score.shape == (num_classes,) and sample.gt_score.sum() == pytest.approx(1)
    assert torch.isfinite(model(**batch, mode='loss')['loss'])
