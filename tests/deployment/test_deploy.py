"""Which modules ``deploy`` touches, what it refuses, and what can be done with its result."""

import copy
import logging

import mmcv.ops  # noqa: F401  registers DCNv2
import pytest
import torch
import torch.nn.functional as F
from deployed_checks import assert_same, checked, count, flat, norms, trained
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.model import MMDistributedDataParallel
from torch import nn
from torch.nn.utils import parametrizations

from icconv_mm import deploy
from icconv_mm.backbones import ICResNet, PyConvResNet
from icconv_mm.deployment.deploy import PackedConv2dReLU
from icconv_mm.layers import ICConv2d, ICConv2dReLU, PyConv2d, PyConv2dReLU, to_inception
from icconv_mm.ops import use_backend

RUNS = [(4, 1, 1), (4, 2, 3)]


def small() -> nn.Sequential:
    """Inception, pyramidal and plain convolutions with norms and activations."""
    pyramid = PyConv2d(8, [4, 8], [3, 5], [1, 4])
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(ICConv2d(8, 8, RUNS), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(pyramid, nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.Conv2d(12, 4, 1)),
    )


X = torch.randn(2, 3, 16, 13)
WIDE = torch.randn(2, 8, 16, 13)


def test_norms_and_relus_of_a_sequence_are_folded():
    deployed = checked(small(), X)
    assert not norms(deployed) and not count(deployed, nn.Identity)
    assert [type(layer) for layer in deployed] == [type(layer) for layer in deploy(small().eval())]
    assert count(deployed, ICConv2dReLU) == count(deployed, PyConv2dReLU) == count(deployed, PackedConv2dReLU) == 1
    assert count(deployed, nn.ReLU) == 0


def test_the_model_is_not_changed():
    model = trained(small()).train()
    before = copy.deepcopy(model)
    deploy(model)
    assert model.training and str(model) == str(before)
    assert all(torch.equal(one, other) for one, other in zip(model.state_dict().values(), before.state_dict().values()))


def test_training_is_refused():
    deployed = checked(ICResNet(18, 'geometric_d2', base_channels=16), torch.randn(1, 3, 32, 32))
    for call in (deployed.train, nn.Sequential(deployed).train, deployed.layer2.train):
        with pytest.raises(RuntimeError, match=r'deployed \(icconv_mm\.deploy\).*cannot be trained'):
            call()
    assert not deployed.eval().training
    assert not any(parameter.requires_grad for parameter in deployed.parameters())
    with pytest.raises(RuntimeError, match='inception_conv2d_relu is for inference'):
        deployed(torch.randn(1, 3, 32, 32, requires_grad=True))


@pytest.mark.parametrize('given', [None, 'model', lambda x: x], ids=['nothing', 'a name', 'a function'])
def test_what_is_no_module(given):
    with pytest.raises(TypeError, match=r'deploy takes a torch\.nn\.Module, got'):
        deploy(given)


def test_a_compiled_model_is_refused():
    with pytest.raises(TypeError, match=r'call torch\.compile on what deploy returns'):
        deploy(torch.compile(small()))


def test_nothing_to_do_is_reported():
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.Sigmoid(), nn.Linear(4, 4))
    with pytest.warns(UserWarning, match='deploy: Sequential has no norm to fold and no ReLU to fuse'):
        deployed = deploy(model)
    assert str(deployed) == str(model) and deployed is not model and not deployed.training
    with pytest.warns(UserWarning, match='no norm to fold'):
        deploy(checked(small(), X))


def test_what_cannot_be_traced_is_counted(caplog):
    with caplog.at_level(logging.INFO, 'icconv_mm'):
        deploy(nn.Sequential(small(), OfTheSize(), Option(), OfTheSize()))
    left = '3 modules left as they are, whose code cannot be traced: 2 OfTheSize, 1 Option'
    assert caplog.messages == [f'deploy: Sequential: 3 norms folded, 3 ReLUs fused, {left}']


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('where', ['pixel', 'bias', 'running_mean'])
@pytest.mark.parametrize('kind', ['IC', 'PyConv', 'plain', 'network'])
def test_values_that_are_none_stay_so(kind, where, value):
    """A network that has diverged must not look finite, plain or deployed."""
    kinds = {'IC': ICConv2d(8, 8, RUNS), 'PyConv': PyConv2d(8, [4, 4], [3, 5], [1, 4]), 'plain': nn.Conv2d(8, 8, 1)}
    kinds['network'] = ICResNet(18, 'geometric_d4', base_channels=16, in_channels=8)
    model = trained(nn.Sequential(kinds[kind], nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.ReLU()))
    model, x = model[0] if kind == 'network' else model, WIDE.clone()
    if where == 'pixel':
        x[1, 2, 7, 6] = value
    else:
        norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
        getattr(norm, where).data[3] = value
    with torch.no_grad():
        with use_backend('reference'):
            expected = flat(model(x))
        for run in (model, deploy(model)):
            for one, other in zip(flat(run(x)), expected, strict=True):
                assert torch.equal(one.isnan(), other.isnan()) and torch.equal(one.isfinite(), other.isfinite())


# --- which chains are found


class Block(nn.Module):
    """Convolution, norm and ReLU called by code; subclasses call them otherwise."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = ICConv2d(8, 8, RUNS), nn.BatchNorm2d(8), nn.ReLU()

    def forward(self, x):
        return self.relu(self.bn(self.conv(x)))


class OneReLU(Block):
    """The ReLU is called twice: it cannot be taken away."""

    def forward(self, x):
        return self.relu(self.bn(self.conv(self.relu(x - 1))))


class Functional(Block):
    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Branch(Block):
    """Something else than the norm reads the convolution, too."""

    def forward(self, x):
        y = self.conv(x)
        return self.relu(self.bn(y)) + y


class BranchBeforeReLU(Block):
    def forward(self, x):
        y = self.bn(self.conv(x))
        return self.relu(y) + y


class NormFirst(Block):
    """Registered like the others, but called in another order."""

    def forward(self, x):
        return self.relu(self.conv(self.bn(x)))


class Twice(Block):
    """One convolution before and behind the norm."""

    def forward(self, x):
        return self.conv(self.relu(self.bn(self.conv(x))))


class ReadsTheWeight(Block):
    def forward(self, x):
        return self.relu(self.bn(self.conv(x))) + self.conv.weight.mean()


class OfTheSize(Block):
    """Control flow on the input: the code cannot be traced."""

    def forward(self, x):
        return self.relu(self.bn(self.conv(x))) if x.shape[2] > 4 else self.conv(x)


class Option(Block):
    """A trace would show only one way through the code."""

    def forward(self, x, skip=None):
        return self.conv(x) if skip is None else self.bn(self.conv(x))


class Lists(Block):
    """Layers in lists, as heads have them; another norm of the same convolution."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)])
        self.bns = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        del self.conv, self.bn

    def forward(self, x):
        for conv, bn in zip(self.convs, self.bns):
            x = self.relu(bn(conv(x)))
        return x


class OfTheKind(Block):
    """A trace, which has no tensors, would show the other way."""

    def forward(self, x):
        y = self.conv(x)
        return self.bn(y) + y if isinstance(x, torch.Tensor) else self.bn(y)


class Keeps(Block):
    def forward(self, x):
        self.last = self.bn(self.conv(x))
        return self.relu(self.last)


class StatisticsOfTheBatch(Block):
    """In evaluation, too."""

    def train(self, mode=True):
        super().train(mode)
        self.bn.train()
        return self


# block -> norms left, inception convolutions with ReLU; None: nothing is found, which is reported
BLOCKS = {
    Block: (0, 1),
    OneReLU: (0, 0),
    Functional: (0, 0),
    Branch: None,
    BranchBeforeReLU: (0, 0),
    NormFirst: (1, 1),
    Twice: None,
    ReadsTheWeight: None,
    OfTheSize: None,
    Option: None,
    OfTheKind: None,
    Keeps: None,
    StatisticsOfTheBatch: None,
    Lists: (0, 0),
}


@pytest.mark.filterwarnings('ignore:deploy')
@pytest.mark.parametrize('kind', BLOCKS, ids=lambda kind: kind.__name__)
def test_only_what_the_code_shows_is_folded(kind):
    model = kind()
    deployed = checked(model, WIDE)
    left, fused = BLOCKS[kind] or (1, 0)
    assert (len(norms(deployed)), count(deployed, ICConv2dReLU)) == (left, fused)
    assert_same(model, deployed, WIDE[:, :, :3])  # the other way through the code, where there are two


class Reader(nn.Module):
    """Takes the layers of a part one by one; subclasses in other ways."""

    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = Block()

    def forward(self, x):
        maps = []
        for layer in self.part:
            x = layer(x)
            maps.append(x.clone())
        return [*maps, self.block(x)]


class Slices(Reader):
    def forward(self, x):
        return self.part[:1](x) + self.part(x) + self.block(x)


class Method(Reader):
    def forward(self, x):
        return self.part(x) + self.block.conv(x) + self.block(x)


@pytest.mark.parametrize(('kind', 'left'), [(Reader, 1), (Slices, 1), (Method, 1)])
def test_parts_whose_layers_others_call_stay(kind, left):
    deployed = checked(kind(), WIDE)
    assert len(norms(deployed)) == left


@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), None])
def test_tood_takes_convolutions_from_their_modules(norm_cfg):
    tood = pytest.importorskip('mmdet.models.dense_heads.tood_head')
    part = trained(tood.TaskDecomposition(8, 2, 4, norm_cfg=norm_cfg)).eval()
    part.init_weights()
    maps = torch.randn(2, 16, 9, 7)
    with torch.no_grad(), pytest.warns(UserWarning, match='has no norm to fold'):
        assert_same(part, deploy(part), maps)


def test_a_hook_keeps_its_module():
    model, seen = small(), []
    model[0].register_forward_hook(lambda *_: seen.append('conv'))
    model[4].register_forward_hook(lambda *_: seen.append('norm'))
    deployed = checked(model, X)
    assert norms(deployed) == ['1', '4'] and seen == ['conv', 'norm'] * 2


def test_a_parametrized_convolution_stays():
    model = small()
    parametrizations.orthogonal(model[0])
    assert norms(checked(model, X)) == ['1']


def test_one_convolution_with_several_norms():
    """As in heads that share weights, but not statistics, between levels."""
    conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    branches = [nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU()) for _ in range(2)]
    deployed = checked(nn.Sequential(*branches), WIDE)
    assert not norms(deployed) and deployed[0][0] is not deployed[1][0]


def test_transposed_convolutions():
    model = nn.Sequential(
        nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 4, 2, 1, groups=2),
        nn.BatchNorm2d(4),
    )
    assert norms(checked(model, WIDE)) == ['4']


CONV_MODULES = {
    'conv, norm, act': (ConvModule(8, 4, 3, norm_cfg={'type': 'BN'}), 0),
    'bias': (ConvModule(8, 4, 3, norm_cfg={'type': 'BN'}, bias=True, act_cfg=None), 0),
    'conv, act, norm': (ConvModule(8, 4, 3, norm_cfg={'type': 'BN'}, order=('conv', 'act', 'norm')), 1),
    'act, norm, conv': (ConvModule(8, 4, 3, norm_cfg={'type': 'BN'}, order=('act', 'norm', 'conv')), 1),
    'norm, conv, act': (ConvModule(8, 4, 3, norm_cfg={'type': 'BN'}, order=('norm', 'conv', 'act')), 1),
    'reflecting': (ConvModule(8, 4, 3, padding=1, norm_cfg={'type': 'BN'}, padding_mode='reflect'), 0),
    'weight standardised': (ConvModule(8, 4, 3, conv_cfg={'type': 'ConvAWS'}, norm_cfg={'type': 'BN'}), 1),
    'spectral norm': (ConvModule(8, 4, 3, with_spectral_norm=True, norm_cfg={'type': 'BN'}), 1),
    'group norm': (ConvModule(8, 4, 3, norm_cfg={'type': 'GN', 'num_groups': 2}), 0),
    'separable': (DepthwiseSeparableConvModule(8, 4, 3, norm_cfg={'type': 'BN'}), 0),
    'efficient': (ConvModule(8, 4, 3, norm_cfg={'type': 'BN'}, efficient_conv_bn_eval=True), 1),
}


@pytest.mark.filterwarnings('ignore:deploy')
@pytest.mark.parametrize('name', CONV_MODULES)
def test_conv_modules(name):
    module, left = CONV_MODULES[name]
    assert len(norms(checked(module, WIDE))) == left


def test_inception_convolutions_in_conv_modules():
    model = to_inception(nn.Sequential(ConvModule(8, 8, 3, padding=1, norm_cfg={'type': 'BN'}, inplace=False)), [RUNS])
    deployed = checked(model, WIDE)
    assert count(deployed, ICConv2dReLU) == 1 and not norms(deployed) and not count(deployed, nn.ReLU)


def test_a_relu_after_a_convolution_with_bias_is_fused():
    deployed = checked(nn.Sequential(ICConv2d(8, 8, RUNS, bias=True), nn.ReLU()), WIDE)
    assert count(deployed, ICConv2dReLU) == 1 and not count(deployed, nn.ReLU)


# --- what can be done with the result


@pytest.fixture(params=['IC', 'PyConv'])
def network(request):
    if request.param == 'IC':
        return trained(ICResNet(18, 'geometric_d3', base_channels=16))
    return trained(
        PyConvResNet(18, base_channels=64, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
    )


IMAGE = torch.randn(1, 3, 64, 64)


def test_state_dict_round_trip(network):
    deployed = deploy(network)
    other = copy.deepcopy(deployed)
    for parameter in other.parameters():
        parameter.zero_()
    other.load_state_dict(deployed.state_dict())
    assert_same(network, other, IMAGE)


def test_autocast(network):
    deployed = deploy(network)
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        outputs = deployed(IMAGE)
    with torch.no_grad():
        expected = network(IMAGE)
    for got, want in zip(outputs, expected):
        assert ((got.float() - want).abs().max() / want.abs().max()).item() < 0.1


def test_a_wrapper_is_taken_off(tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        model = trained(small())
        deployed = deploy(MMDistributedDataParallel(model))
        assert type(deployed) is nn.Sequential
        assert_same(model, deployed, X)
    finally:
        torch.distributed.destroy_process_group()


def test_offsets_of_deformable_convolutions_keep_their_format():
    """Their operator reads memory without asking for its format; packed filters give channels_last maps."""
    model = nn.Sequential(
        ConvModule(8, 16, 3, padding=1, norm_cfg=dict(type='BN')),
        ConvModule(16, 16, 3, padding=1, conv_cfg=dict(type='DCNv2'), norm_cfg=dict(type='BN')),
    )
    nn.init.normal_(model[1].conv.conv_offset.weight, std=0.3)
    deployed = checked(model, WIDE)
    assert type(deployed[0].conv) is PackedConv2dReLU
    assert deployed[0](WIDE).is_contiguous() and deployed[1].conv.conv_offset(deployed[0](WIDE)).is_contiguous()
