import pytest
import torch

from icconv_mm.errors import InputError
from icconv_mm.tasks.pose.losses import MaskedHeatmapLoss, TagLoss, heatmap_loss, tag_loss


def test_unknown_kind():
    with pytest.raises(InputError, match="'exp' or 'max', got 'l2'"):
        tag_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 2, dtype=torch.long), 'l2')


def test_weights():
    pred, target, mask = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5), torch.ones(2, 4, 5)
    torch.testing.assert_close(
        MaskedHeatmapLoss(loss_weight=3)(pred, target, mask), 3 * heatmap_loss(pred, target, mask).mean()
    )
    indices = torch.stack([torch.randint(0, 20, (2, 4, 3)), torch.ones(2, 4, 3, dtype=torch.long)], -1)
    push, pull = (value.mean() for value in tag_loss(pred, indices))
    got = TagLoss(push_weight=2, pull_weight=5)(pred, indices)
    torch.testing.assert_close(got, (2 * push, 5 * pull))


def test_peak_weight_counts_errors_near_keypoints_more():
    pred, target, mask = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5), torch.ones(2, 4, 5)
    plain = heatmap_loss(pred, target, mask)
    expected = ((pred - target) ** 2 * (1 + 7 * target)).mean((1, 2, 3))
    torch.testing.assert_close(heatmap_loss(pred, target, mask, peak_weight=7.0), expected)
    torch.testing.assert_close(MaskedHeatmapLoss(peak_weight=7.0)(pred, target, mask), expected.mean())
    torch.testing.assert_close(MaskedHeatmapLoss()(pred, target, mask), plain.mean())
    with pytest.raises(InputError, match='peak_weight must not be negative, got -1'):
        MaskedHeatmapLoss(peak_weight=-1)
