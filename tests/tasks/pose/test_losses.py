import pytest
import torch

from icconv_mm.errors import InputError
from icconv_mm.tasks.pose.losses import MaskedHeatmapLoss, TagLoss, heatmap_loss, tag_loss


def literally(tags, indices, kind):
    """Push and pull of one image [K, H, W] with loops over people and keypoints."""
    means, pulls = [], []
    for person in indices:
        values = [tags[k].flatten()[i] for k, (i, v) in enumerate(person.tolist()) if v]
        if values:
            values = torch.stack(values)
            means.append(values.mean())
            pulls.append((values - values.mean()).square().mean())
    count = len(means)
    if count == 0:
        return tags.sum() * 0, tags.sum() * 0
    push = sum(
        torch.exp(-((a - b) ** 2)) if kind == 'exp' else (1 - (a - b).abs()).clamp(min=0)
        for i, a in enumerate(means)
        for j, b in enumerate(means)
        if i != j
    )
    return push / max(1, count * (count - 1)) / 2 + tags.sum() * 0, sum(pulls) / count


@pytest.mark.parametrize('kind', ['exp', 'max'])
@pytest.mark.parametrize('people', [0, 1, 2, 40])
def test_tag_loss_equals_loops(kind, people):
    tags = torch.randn(3, 5, 6, 7, dtype=torch.double, requires_grad=True)
    indices = torch.stack([torch.randint(0, 42, (3, people, 5)), torch.randint(0, 2, (3, people, 5))], -1)
    if people > 1:
        indices[1, 1:, :, 1] = 0  # one person, the others without visible keypoints
        indices[2, :, :, 1] = 0  # nobody
    got = tag_loss(tags, indices, kind)
    for image in range(3):
        for value, expected in zip(got, literally(tags[image], indices[image], kind)):
            torch.testing.assert_close(value[image], expected)
            grad, expected_grad = (torch.autograd.grad(v, tags, retain_graph=True)[0] for v in (value[image], expected))
            torch.testing.assert_close(grad, expected_grad)


def test_two_people_far_apart_have_no_push():
    tags = torch.tensor([0.0, 100.0]).view(1, 1, 1, 2)
    indices = torch.tensor([[[[0, 1]], [[1, 1]]]])
    assert [value.item() for value in tag_loss(tags, indices)] == [0, 0]
    assert tag_loss(tags * 0, indices)[0].item() == 0.5


def test_unknown_kind():
    with pytest.raises(InputError, match="'exp' or 'max', got 'l2'"):
        tag_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 2, dtype=torch.long), 'l2')


def test_masked_pixels_count_as_right():
    pred, target = torch.rand(2, 3, 4, 5, requires_grad=True), torch.rand(2, 3, 4, 5)
    mask = torch.ones(2, 4, 5, dtype=torch.bool)
    mask[0, :, :3] = False
    value = heatmap_loss(pred, target, mask)
    expected = ((pred - target) ** 2)[0, :, :, 3:].sum() / 60
    torch.testing.assert_close(value[0], expected)
    grad = torch.autograd.grad(value.sum(), pred)[0]
    assert (grad[0, :, :, :3] == 0).all() and (grad[1] != 0).all()


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
