"""Networks of torch's own convolutions, in the tools that know no others."""

import pytest
import torch
from torch import nn

import icconv_mm
from icconv_mm.errors import InputError
from icconv_mm.layers import ICConv2d, PyConv2d, to_standard

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
LAYERS = {
    'runs that return': ICConv2d(8, 6, [(2, 1, 1), (2, 1, 3), (2, 1, 1)], stride=2, bias=True),
    'groups cut by runs': ICConv2d(8, 8, [(1, 1, 1), (3, 2, 1), (4, 1, 1)], groups=2, dilation=2),
    'uniform': ICConv2d(8, 6, [(6, 2, 1)]),
    'pyramid': PyConv2d(8, [4, 4], [3, (1, 5)], [1, 4], stride=2, dilation=2, bias=True),
}


def network(name='ic_resnet18', **options):
    torch.manual_seed(0)
    pattern = {'pattern': 'geometric_d4'} if name.startswith('ic_') else {}
    return icconv_mm.create_model(name, base_channels=16, num_classes=5, **pattern, **options).eval()


@pytest.mark.parametrize('name', LAYERS)
def test_layers(name):
    layer = LAYERS[name].double()
    x = torch.randn(2, 8, 12, 11, dtype=torch.double, requires_grad=True)
    expected = layer(x)
    (expected_grad,) = torch.autograd.grad(expected.square().sum(), x)
    split = to_standard(layer)
    assert split is not layer and all(type(convolution) is nn.Conv2d for convolution in split.convolutions)
    y = split(x)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, expected_grad)
    assert all(parameter.grad is not None for parameter in split.parameters())


@pytest.mark.parametrize('name', ['ic_resnet18', 'ic_resnext50_32x4d', 'pyconv_resnet18'])
@pytest.mark.parametrize('prepare', [lambda net: net, icconv_mm.deploy], ids=['plain', 'deployed'])
def test_networks(name, prepare):
    net = prepare(network(name))
    expected = net(X)
    torch.testing.assert_close(to_standard(net)(X), expected, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, (ICConv2d, PyConv2d)) for module in net.modules())


@pytest.mark.parametrize('name', ['ic_resnet18', 'pyconv_resnet18'])
def test_quantisation_reaches_every_convolution(name):
    pytest.importorskip('torchao', exc_type=ImportError)
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.testing.pt2e import _xnnpack_quantizer as xnnpack

    net = network(name)
    expected = net(X)
    program = torch.export.export(to_standard(icconv_mm.deploy(net)), (X,)).module()
    quantizer = xnnpack.XNNPACKQuantizer().set_global(xnnpack.get_symmetric_quantization_config())
    prepared = prepare_pt2e(program, quantizer)
    prepared(X)
    converted = convert_pt2e(prepared)
    convolutions = [node for node in converted.graph.nodes if 'conv2d' in str(node.target)]
    assert len(convolutions) > 20
    assert all('dequantize' in str(argument.target) for node in convolutions for argument in node.args[:2])
    assert (converted(X) - expected).abs().mean() < 0.1 * expected.abs().mean()


def test_pruning():
    pruning = pytest.importorskip('torch_pruning')
    net = to_standard(network())
    before = sum(parameter.numel() for parameter in net.parameters())
    pruner = pruning.pruner.MagnitudePruner(
        net, X, pruning.importance.MagnitudeImportance(), pruning_ratio=0.5, ignored_layers=[net.get_classifier()]
    )
    pruner.step()
    assert sum(parameter.numel() for parameter in net.parameters()) < 0.5 * before
    net.train()(X).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize('name', ['ic_resnet18', 'pyconv_resnet18'])
def test_traces_with_gradients(name):
    """``trace`` itself compares a second trace with the first."""
    net = network(name)
    torch.testing.assert_close(torch.jit.trace(net, X, check_trace=True)(X), net(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('layer', LAYERS.values(), ids=LAYERS)
def test_scripting_is_refused_in_a_message(layer):
    with pytest.raises(InputError, match=r'^torch\.jit\.script cannot read .*Conv2d: use torch\.export'):
        torch.jit.script(nn.Sequential(layer))
