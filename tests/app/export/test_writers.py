"""Programs of torch's own operators: what converters for phones get to read."""

from argparse import ArgumentParser

import pytest
import torch
from skips import EXPORTS
from torch import nn

pytest.importorskip('onnxscript')
if not EXPORTS:
    pytest.skip('this torch is too old for exports', allow_module_level=True)

from onnx import numpy_helper

from icconv_mm.app.commands import export
from icconv_mm.app.export import quantization
from icconv_mm.app.export.onnx_files import to_onnx
from icconv_mm.app.export.writers import FORMATS, own_operators, standard_module, write_program
from icconv_mm.backbones import ICResNet, PyConvResNet
from icconv_mm.deployment import deploy
from icconv_mm.patterns.receptive_field import randomize
from icconv_mm_runtime.metadata import KEY

SHAPES = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
SMALL = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
X = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


class Rows(nn.Module):
    """A network and a head that reads pixels as rows: a view of maps that are channels_last, a copy of others."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        maps = self.network(x)[-1]
        return maps, maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, maps.shape[1])


@pytest.fixture(scope='module', params=['inception', 'pyramidal'])
def network(request):
    backbone = ICResNet(18, 'geometric_d4', **SMALL) if request.param == 'inception' else PyConvResNet(18, **SMALL)
    randomize(backbone)
    return Rows(deploy(backbone.eval())).requires_grad_(False)


@pytest.fixture(scope='module')
def program(network):
    return torch.export.export(network, (X,), dynamic_shapes=SHAPES, strict=False)


@pytest.fixture(scope='module')
def standard(program):
    return standard_module(program)


class TwoNames(nn.Module):
    """A network that two names reach: torch.export traces it by classes of its own."""

    def __init__(self, network):
        super().__init__()
        self.network = self.other = network

    def forward(self, x):
        return self.network(x)


def test_a_network_of_two_names_keeps_its_operators(network, program):
    def operators(exported):
        return [str(node.target) for node in exported.graph.nodes if str(node.target).startswith('icconv_mm')]

    again = torch.export.export(TwoNames(network), (X,), dynamic_shapes=SHAPES, strict=False)
    assert operators(again) == operators(program) != []


def is_whole(tensor):
    """Whether a tensor is contiguous and all of its memory, neither channels_last nor a slice."""
    return tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_weights_and_maps_are_contiguous(program, standard):
    assert not all(is_whole(tensor) for tensor in program.state_dict.values())  # else there would be nothing to mend
    again = torch.export.export(standard, (X,), dynamic_shapes=SHAPES, strict=False)
    for tensors in (standard.state_dict(), again.state_dict, again.constants):
        assert all(is_whole(tensor) for tensor in tensors.values())
    for node in (*standard.graph.nodes, *again.graph.nodes):
        assert torch.channels_last not in node.kwargs.values(), node.format_node()
        assert torch.channels_last not in node.args, node.format_node()
    assert own_operators(program) and not own_operators(again)


def test_a_module_holds_what_its_graph_reads(program, standard):
    model = to_onnx(program, ['image'], ['map', 'rows'])
    size = sum(numpy_helper.to_array(value).nbytes for value in model.graph.initializer)
    held = sum(tensor.nbytes for tensor in standard.state_dict().values())
    assert held == pytest.approx(size, rel=1e-2)  # ONNX has shapes as well


@pytest.mark.parametrize('size', [(2, 3, 64, 96), (3, 3, 96, 64)])
def test_a_program_computes_the_same(network, standard, size, tmp_path):
    file, x = tmp_path / 'net.pt2', torch.randn(size)
    again = torch.export.export(standard, (X,), dynamic_shapes=SHAPES, strict=False)
    write_program(again, {'schema': 1}, file)
    texts = {KEY: ''}
    loaded = torch.export.load(file, extra_files=texts).module()
    assert texts[KEY] in ('{"schema": 1}', b'{"schema": 1}')
    for one, two, expected in zip(standard(x), loaded(x), network(x), strict=True):
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        torch.testing.assert_close(two, one, rtol=0, atol=0)


def test_tensors_of_one_name_stay_one():
    """A layer that is called twice, and a bias that is part of a larger one."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 3, 1, bias=False)
            self.second = self.first
            self.register_buffer('biases', torch.randn(6))

        def forward(self, x):
            return self.second(self.first(x)) + self.biases[3:, None, None]

    module = standard_module(torch.export.export(Twice().requires_grad_(False), (X,), strict=False))
    values = {tensor.data_ptr(): tensor for tensor in module.state_dict().values()}
    assert sorted(tensor.numel() for tensor in values.values()) == [3, 9]
    assert all(map(is_whole, values.values()))


def test_the_command_and_the_quantiser_know_all_formats():
    parser = ArgumentParser()
    export.add_arguments(parser)
    assert parser._option_string_actions['--to'].choices == tuple(FORMATS)
    assert quantization._QUANTIZED.keys() == {name for name, form in FORMATS.items() if form.load is None}
