"""RoIAlign as weighted sums of rows, against mmcv's, whose extractor has the same arguments."""

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.models.roi_heads import SingleRoIExtractor

from icconv_mm.tasks.detection import CPURoIExtractor

STRIDES = [4, 8, 16, 32]


def extractors(size=7, samples=2, channels=5, **layer):
    layer = dict(type='RoIAlign', output_size=size, sampling_ratio=samples, **layer)
    return [kind(layer, channels, STRIDES) for kind in (SingleRoIExtractor, CPURoIExtractor)]


def maps(height, width, batch=2, channels=5, seed=0, **options):
    random = torch.Generator().manual_seed(seed)
    sides = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    return [torch.randn(batch, channels, *side, generator=random, **options).requires_grad_() for side in sides]


def regions(count, height, width, batch=2, seed=0):
    """Regions of all levels, some of them beyond the image, one without area."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 4, generator=random) * torch.tensor([width, height, width, height]) * 1.6
    corners -= torch.tensor([width, height, width, height]) * 0.3
    corners[: count // 2, 2:] = corners[: count // 2, :2] + torch.rand(count // 2, 2, generator=random) * 30
    corners = torch.cat([corners[:, :2].minimum(corners[:, 2:]), corners[:, :2].maximum(corners[:, 2:])], 1)
    corners[0, 2:] = corners[0, :2]
    return torch.cat([torch.randint(0, batch, (count, 1), generator=random).float(), corners], 1)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ('size', 'samples', 'height', 'width', 'count'),
    [(7, 2, 144, 192, 60), (14, 2, 96, 64, 20), (7, 1, 33, 50, 40), (3, 4, 200, 40, 30), ((3, 5), 2, 64, 96, 20)],
)
def test_features_and_gradients_are_those_of_mmcv(size, samples, height, width, count, memory_format):
    theirs, ours = extractors(size, samples)
    rois = regions(count, height, width)
    feats = maps(height, width)
    expected = theirs(feats, rois)
    features = ours([feature.contiguous(memory_format=memory_format) for feature in feats], rois)
    torch.testing.assert_close(features, expected, rtol=0, atol=2e-5)
    assert features.is_contiguous(memory_format=memory_format)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    for gradient, other in zip(torch.autograd.grad(features, feats, grad), torch.autograd.grad(expected, feats, grad)):
        torch.testing.assert_close(gradient, other, rtol=0, atol=2e-4)


def test_no_regions():
    """Their gradient is zero for every map, as DDP requires."""
    _, ours = extractors()
    feats = maps(64, 64)
    features = ours(feats, torch.zeros(0, 5))
    assert features.shape == (0, 5, 7, 7)
    assert all((grad == 0).all() for grad in torch.autograd.grad(features.sum(), feats))


def test_corners_that_are_not_numbers_change_no_other_region():
    _, ours = extractors()
    feats, rois = maps(64, 64), regions(6, 64, 64)
    expected = ours(feats, rois)
    rois[2, 1:], rois[4, 3] = float('nan'), float('inf')
    torch.testing.assert_close(ours(feats, rois)[[0, 1, 3, 5]], expected[[0, 1, 3, 5]])


@pytest.mark.parametrize(
    ('layer', 'dtype', 'factor'),
    [
        ({'samples': 0}, torch.float32, None),
        ({'aligned': False}, torch.float32, None),
        ({'pool_mode': 'max'}, torch.float32, None),
        ({}, torch.float64, None),
        ({}, torch.float32, 1.5),
    ],
    ids=str,
)
def test_the_rest_is_computed_by_mmdet(layer, dtype, factor):
    theirs, ours = extractors(**layer)
    feats, rois = [feature.to(dtype) for feature in maps(64, 64)], regions(12, 64, 64).to(dtype)
    torch.testing.assert_close(ours(feats, rois, factor), theirs(feats, rois, factor), rtol=0, atol=0)


def test_a_seed_gives_the_same_gradients():
    _, ours = extractors()
    feats, rois = maps(64, 64), regions(60, 64, 64)
    first, second = (torch.autograd.grad(ours(feats, rois).square().sum(), feats) for _ in range(2))
    for gradient, other in zip(first, second):
        torch.testing.assert_close(gradient, other, rtol=0, atol=0)


def test_traced_for_a_file_it_is_mmdets():
    theirs, ours = extractors()
    feats, rois = maps(64, 64), regions(12, 64, 64)
    traced = torch.jit.trace(lambda *given: ours(given[:-1], given[-1]), (*feats, rois), check_trace=False)
    torch.testing.assert_close(traced(*feats, rois), theirs(feats, rois), rtol=0, atol=0)
