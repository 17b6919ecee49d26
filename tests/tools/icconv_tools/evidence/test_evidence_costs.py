import pytest
import torch
from torch import nn

pytest.importorskip('mmcv.ops')

from icconv_mm.layers import ICConv2d
from icconv_mm.layers.scale_equalized_conv import ScaleEqualizedConv2d
from icconv_tools.evidence.costs import network_costs


class Model(nn.Module):
    """A convolution as the libraries call a model."""

    def __init__(self, layer, **options):
        super().__init__()
        self.layer, self.options = layer, options

    def test_step(self, data):
        return self.layer(torch.stack(data['inputs']), **self.options)


FLOPS = 2 * 8 * 4 * 9 * 16 * 16  # of a 3x3 convolution from 4 to 8 channels on 16 x 16 pixels
BATCH = {'inputs': [torch.zeros(4, 16, 16)] * 2}


@pytest.mark.parametrize('layer', [nn.Conv2d(4, 8, 3, padding=1, bias=False), ICConv2d(4, 8, [(4, 1, 1), (4, 2, 3)])])
def test_flops_of_a_picture(layer):
    costs = network_costs(Model(layer), BATCH)
    assert costs['flops'] == FLOPS and costs['parameters'] == 8 * 4 * 9 and costs['milliseconds'] > 0


def test_deformable_convolutions_count():
    layer = ScaleEqualizedConv2d(4, 8, deform=True)
    offsets = FLOPS * 18 // 8
    assert network_costs(Model(layer, deform=True), BATCH)['flops'] == FLOPS + offsets
    assert network_costs(Model(layer, deform=False), BATCH)['flops'] == FLOPS
