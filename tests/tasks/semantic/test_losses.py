"""Losses of segmentation maps."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmseg')

from icconv_mm.registry import MODELS


def test_weighted_cross_entropy():
    """As torch computes it, without ignored pixels; no loss without labels; pixel weights multiply class weights."""
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    labels = torch.randint(0, 3, (2, 4, 5))
    labels[0, :2] = 255
    loss = MODELS.build(dict(type='WeightedCrossEntropyLoss', class_weight=[1.0, 2.0, 5.0], loss_weight=0.5))
    expected = F.cross_entropy(logits, labels, torch.tensor([1.0, 2.0, 5.0]), ignore_index=255)
    torch.testing.assert_close(loss(logits, labels), 0.5 * expected)
    pixels = torch.zeros(2, 4, 5)
    assert loss(logits, labels, weight=pixels) == 0
    ignore_index = loss(logits, torch.full_like(labels, 255))
    ignore_index.backward()
    assert ignore_index == 0 and logits.grad.abs().max() == 0
