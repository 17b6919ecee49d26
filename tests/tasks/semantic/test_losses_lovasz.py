"""The Lovasz-Softmax loss, against mmseg's."""

import pytest
import torch

pytest.importorskip('mmseg')

from mmseg.models.losses import LovaszLoss

from icconv_mm.tasks.semantic import LovaszSoftmaxLoss


def with_gradient(loss, logits, label, **options):
    logits = logits.clone().requires_grad_()
    value = loss(logits, label, **options)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@pytest.mark.parametrize('ignored', [0.0, 0.3])
@pytest.mark.parametrize(('classes', 'present'), [(2, 2), (5, 3), (11, 11)])
def test_value_and_gradient_are_those_of_mmseg(classes, present, ignored):
    random = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(2, classes, 9, 13, generator=random)
    label = torch.randint(0, present, (2, 9, 13), generator=random)
    label[torch.rand(label.shape, generator=random) < ignored] = 255
    expected, expected_grad = with_gradient(LovaszLoss(reduction='none', loss_weight=0.5), logits, label)
    value, grad = with_gradient(LovaszSoftmaxLoss(loss_weight=0.5), logits, label)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-8)


def test_another_label_is_ignored():
    logits, label = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 6, 6).long()
    label[0, 2:, :3], label[0, 2:, 3:] = 1, 2
    theirs, ours = (
        with_gradient(loss, logits, label, ignore_index=2)
        for loss in (LovaszLoss(reduction='none'), LovaszSoftmaxLoss())
    )
    for value, other in zip(ours, theirs):
        torch.testing.assert_close(value, other)
    assert (ours[1][0, :, 2:, 3:] == 0).all()


def test_a_batch_of_ignored_pixels_has_no_loss():
    value, grad = with_gradient(LovaszSoftmaxLoss(), torch.randn(1, 3, 4, 4), torch.full((1, 4, 4), 255))
    assert value == 0 and (grad == 0).all()


def test_a_loss_that_is_not_a_number_stays_so():
    logits = torch.randn(1, 3, 4, 4)
    logits[0, 1, 2, 2] = float('nan')
    assert LovaszSoftmaxLoss()(logits, torch.arange(16).view(1, 4, 4) % 3).isnan()


def test_logits_of_half_precision():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 8, 8, generator=random).bfloat16()
    label = torch.randint(0, 3, (1, 8, 8), generator=random)
    torch.testing.assert_close(LovaszSoftmaxLoss()(logits, label), LovaszSoftmaxLoss()(logits.float(), label))
