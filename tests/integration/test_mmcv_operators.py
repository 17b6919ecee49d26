"""mmcv's compiled operators, which the set-up builds its own way, against torchvision's: values and gradients."""

import mmcv.ops
import pytest
import torch
import torchvision.ops


def random_boxes(count: int, size: float) -> torch.Tensor:
    """`count` boxes (x1, y1, x2, y2) inside a square of side `size`, every side at least one pixel long."""
    corner = torch.rand(count, 2) * (size - 1)
    extent = 1 + torch.rand(count, 2) * (size - 1 - corner)
    return torch.cat([corner, corner + extent], 1)


def compare(ours, theirs, *inputs: torch.Tensor) -> None:
    """Both functions give the same value for `inputs`, and the same gradients of a random product with it."""
    results = []
    for function in (ours, theirs):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        value = function(*leaves)
        cotangent = torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=value.dtype)
        results.append([value.detach(), *torch.autograd.grad(value, leaves, cotangent)])
    for got, wanted in zip(*results, strict=True):
        assert wanted.abs().max() > 0
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.9])
def test_nms(threshold):
    boxes, scores = random_boxes(300, 40.0), torch.rand(300)
    detections, indices = mmcv.ops.nms(boxes, scores, threshold)
    wanted = torchvision.ops.nms(boxes, scores, threshold)
    assert 0 < len(wanted) < 300
    torch.testing.assert_close(indices, wanted)
    torch.testing.assert_close(detections, torch.cat([boxes, scores[:, None]], 1)[wanted])


@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('sampling', [0, 2])
def test_roi_align(aligned, sampling):
    image = torch.arange(20).remainder(2)[:, None].float()
    rois = torch.cat([image, random_boxes(20, 60.0)], 1)
    compare(
        lambda x: mmcv.ops.roi_align(x, rois, (5, 7), 0.25, sampling, 'avg', aligned),
        lambda x: torchvision.ops.roi_align(x, rois, (5, 7), 0.25, sampling, aligned),
        torch.randn(2, 6, 16, 15),
    )


@pytest.mark.parametrize('masked', [False, True])
def test_deformable_convolution(masked):
    """Two groups of offsets and of channels; stride, padding and dilation 2; in double, where order does not matter."""
    image, weight = torch.randn(2, 8, 13, 11).double(), torch.randn(6, 4, 3, 3).double()
    offset, mask = torch.randn(2, 2 * 2 * 9, 7, 6).double() * 2, torch.rand(2, 2 * 9, 7, 6).double()
    if masked:
        bias = torch.randn(6).double()
        compare(
            lambda x, o, m, w, b: mmcv.ops.modulated_deform_conv2d(x, o, m, w, b, 2, 2, 2, 2, 2),
            lambda x, o, m, w, b: torchvision.ops.deform_conv2d(x, o, w, b, 2, 2, 2, m),
            *(image, offset, mask, weight, bias),
        )
    else:
        compare(
            lambda x, o, w: mmcv.ops.deform_conv2d(x, o, w, 2, 2, 2, 2, 2),
            lambda x, o, w: torchvision.ops.deform_conv2d(x, o, w, None, 2, 2, 2),
            *(image, offset, weight),
        )
