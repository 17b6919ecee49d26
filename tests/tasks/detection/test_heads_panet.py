"""PANet's heads: a path for each level, fused by their maximum, and masks with a fully connected branch."""

import pytest
import torch
import torch.nn.functional as F

from icconv_mm.errors import InputError

pytest.importorskip('mmdet.models')

from mmdet.models.roi_heads.roi_extractors import GenericRoIExtractor

from icconv_mm.tasks.detection import PANet2FCBBoxHead, PANetBBoxHead, PANetMaskHead

LEVELS, CHANNELS, SIZE = 3, 8, 4
NORM = {'type': 'GN', 'num_groups': 2}
SMALL = {'num_levels': LEVELS, 'in_channels': CHANNELS, 'roi_feat_size': SIZE, 'num_classes': 5, 'norm_cfg': NORM}


def regions(size=SIZE, count=2):
    return torch.randn(count, LEVELS * CHANNELS, size, size)


def convolved(module, x):
    """What a convolution with its norm and ReLU gives."""
    x = F.conv2d(x, module.conv.weight, padding=1)
    return F.group_norm(x, module.norm.num_groups, module.norm.weight, module.norm.bias).relu()


def fused(x, paths, step):
    """The largest of what each level's path makes of its own channels, written out."""
    first, *others = [
        step(path, x[:, level * CHANNELS : (level + 1) * CHANNELS]) for level, path in enumerate(paths.level_paths)
    ]
    for other in others:
        first = torch.where(other > first, other, first)
    return first


def test_boxes_of_convolutions_are_as_written_out():
    head = PANetBBoxHead(conv_out_channels=CHANNELS, fc_out_channels=16, **SMALL)
    x = regions()
    y = fused(x, head, convolved)
    assert len(head.shared_convs) == 3 and len(head.shared_fcs) == 1
    for conv in head.shared_convs:
        y = convolved(conv, y)
    y = head.shared_fcs[0](y.flatten(1)).relu()
    scores, boxes = head(x)
    torch.testing.assert_close(scores, head.fc_cls(y))
    torch.testing.assert_close(boxes, head.fc_reg(y))
    assert scores.shape == (2, 6) and boxes.shape == (2, 20)


def layer(module, x):
    _, linear, norm, _ = module
    return F.group_norm(linear(x.flatten(1)), norm.num_groups, norm.weight, norm.bias).relu()


def test_boxes_of_fully_connected_layers_are_as_written_out():
    head = PANet2FCBBoxHead(fc_out_channels=16, **SMALL)
    head.init_weights()
    x = regions()
    y = layer(head.shared_fc, fused(x, head, layer))
    scores, boxes = head(x)
    torch.testing.assert_close(scores, head.fc_cls(y))
    torch.testing.assert_close(boxes, head.fc_reg(y))
    assert scores.shape == (2, 6) and boxes.shape == (2, 20)
    # as mmdet's heads begin: small predictors, Xavier's layers
    assert head.fc_cls.weight.std() < 0.02 and head.fc_reg.weight.std() < 0.002
    limit = (6 / (CHANNELS * SIZE**2 + 16)) ** 0.5
    assert 0.9 * limit < head.level_paths[0][1].weight.abs().max() <= limit


def test_masks_are_as_written_out():
    head = PANetMaskHead(conv_out_channels=CHANNELS, **SMALL)
    head.init_weights()
    x = regions()
    y = fused(x, head, convolved)
    for conv in head.convs[:2]:
        y = convolved(conv, y)
    maps = F.conv_transpose2d(convolved(head.convs[2], y), head.upsample.weight, head.upsample.bias, stride=2).relu()
    whole = convolved(head.fc_convs[1], convolved(head.fc_convs[0], y))
    whole = head.mask_fc(whole.flatten(1)).relu().view(2, 1, 2 * SIZE, 2 * SIZE)
    masks = head(x)
    assert masks.shape == (2, 5, 2 * SIZE, 2 * SIZE)
    torch.testing.assert_close(masks, head.conv_logits(maps) + whole)
    assert (whole > 0).any() and head(x[:0]).shape == (0, 5, 2 * SIZE, 2 * SIZE)


@pytest.mark.parametrize('kind', [PANetBBoxHead, PANet2FCBBoxHead, PANetMaskHead])
def test_every_level_learns(kind):
    head = kind(**SMALL)
    outputs = head(regions(count=4))
    sum(output.square().sum() for output in (outputs if isinstance(outputs, tuple) else [outputs])).backward()
    for path in head.level_paths:
        assert all(parameter.grad.abs().max() > 0 for parameter in path.parameters())


def test_regions_of_all_levels_are_mmdets():
    """What mmdet's extractor gives, a head takes."""
    extractor = GenericRoIExtractor(
        aggregation='concat',
        roi_layer={'type': 'RoIAlign', 'output_size': SIZE, 'sampling_ratio': 2},
        out_channels=LEVELS * CHANNELS,
        featmap_strides=[4, 8, 16],
    )
    maps = [torch.randn(1, CHANNELS, 32 // 2**level, 32 // 2**level) for level in range(LEVELS)]
    rois = torch.tensor([[0, 4.0, 4.0, 60.0, 90.0], [0, 10.0, 20.0, 14.0, 26.0]])
    x = extractor(maps, rois)
    torch.testing.assert_close(x[:, CHANNELS : 2 * CHANNELS], extractor.roi_layers[1](maps[1], rois))
    assert PANetBBoxHead(**SMALL)(x)[0].shape == (2, 6)


@pytest.mark.parametrize('kind', [PANetBBoxHead, PANet2FCBBoxHead, PANetMaskHead])
def test_regions_of_one_level_are_refused(kind):
    with pytest.raises(
        InputError, match=r'regions of 3 levels with 8 channels each.*got a map of shape \[2, 8, 4, 4\]'
    ):
        kind(**SMALL)(torch.randn(2, CHANNELS, SIZE, SIZE))
