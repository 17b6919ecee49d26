"""Detectron's pickles: the seven released layouts in small, and files that are damaged or hostile."""

import contextlib
import io
import os
import pickle
import pickletools
import re

import numpy as np
import pytest
import torch
from torch import nn

from icconv_mm.backbones.resnet import ResNet
from icconv_mm.checkpoints import CheckpointError, UnsafeCheckpointError, convert, convert_file, load_detectron

RESNEXT = {'groups': 4, 'base_width': 2}
# file -> settings of a narrow network, name of its classifier, layout that is reported
RELEASED = {
    'R-50': ({'depth': 50, 'style': 'caffe'}, 'fc1000', 'Detectron ResNet-50, batch norm'),
    'R-101': ({'depth': 101, 'style': 'caffe'}, 'fc1000', 'Detectron ResNet-101, batch norm'),
    'R-50-GN': ({'depth': 50, 'norm': 'gn'}, 'pred', 'Detectron ResNet-50, group norm'),
    'R-101-GN': ({'depth': 101, 'norm': 'gn'}, 'pred', 'Detectron ResNet-101, group norm'),
    'X-101-32x8d': ({'depth': 101, **RESNEXT}, 'pred', 'Detectron ResNeXt-101 4x2d, batch norm'),
    'X-101-64x4d': ({'depth': 101, **RESNEXT}, 'last_out_L1000', 'Detectron ResNeXt-101 4x2d, batch norm'),
    'X-152-32x8d-IN5k': ({'depth': 152, **RESNEXT}, 'pred', 'Detectron ResNeXt-152 4x2d, batch norm'),
}


def network(depth=50, norm='bn', **settings) -> ResNet:
    """A ResNet of random weights, with batch norms that only scale and shift, as Detectron's."""
    norm_cfg = {'type': 'GN', 'num_groups': 4} if norm == 'gn' else {'type': 'BN'}
    net = ResNet(depth, base_channels=8, norm_cfg=norm_cfg, **settings).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1 - module.eps)
    return net


def blob_name(key: str, norm: str) -> str | None:
    """Caffe2's name of a parameter of a ResNet; None for the statistics of norms, which it does not have."""
    module, _, parameter = key.rpartition('.')
    if parameter not in ('weight', 'bias'):
        return None
    if module == 'conv1':
        return 'conv1_w'
    if module in ('bn1', 'gn1'):
        return f'{"res_" if norm == "bn" else ""}conv1_{norm}_{parameter[0].replace("w", "s")}'
    stage, block, inside = re.fullmatch(r'layer(\d)\.(\d+)\.(.+)', module).groups()
    name = f'res{int(stage) + 1}_{block}_branch'
    name += '1' if inside.startswith('downsample') else '2' + ' abc'[int(inside[-1])]
    if inside.startswith('conv') or inside == 'downsample.0':
        return f'{name}_w'
    return f'{name}_{norm}_{"s" if parameter == "weight" else "b"}'


def blobs_of(net: ResNet, norm: str = 'bn', classifier: str = 'pred') -> dict[str, np.ndarray]:
    blobs = {blob_name(key, norm): value.numpy().copy() for key, value in net.state_dict().items()}
    blobs.pop(None, None)
    blobs[f'{classifier}_w'] = np.random.randn(10, net.out_channels[-1]).astype(np.float32)
    blobs[f'{classifier}_b'] = np.random.randn(10).astype(np.float32)
    blobs['conv1_w_momentum'] = np.zeros_like(blobs['conv1_w'])
    blobs['lr'] = np.zeros(1, np.float32)
    return blobs


def write(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize('released', RELEASED)
def test_released_layouts(released, tmp_path):
    settings, classifier, layout = RELEASED[released]
    net = network(**settings)
    blobs = blobs_of(net, settings.get('norm', 'bn'), classifier)
    path = write(tmp_path / f'{released}.pkl', {'blobs': blobs, 'cfg': 'MODEL: {}'})
    conversion = convert_file(path, tmp_path / 'out.pth', 'detectron')
    assert conversion.layout == layout and not conversion.left
    written = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    other = network(**settings)
    weights = {key.removeprefix('backbone.'): value for key, value in written.items() if not key.startswith('head')}
    other.load_state_dict(weights, strict=True)
    x = torch.randn(1, 3, 64, 48)
    for got, expected in zip(other(x), net(x), strict=True):
        torch.testing.assert_close(got, expected)
    assert torch.equal(written['head.fc.weight'], torch.from_numpy(blobs[f'{classifier}_w']))
    # as a config loads it
    other = network(**settings)
    other.load_state_dict(dict(written))
    torch.testing.assert_close(other(x), net(x))


def test_a_bias_of_the_first_convolution_goes_into_its_norm(tmp_path):
    """R-50 was converted from a Caffe network whose first convolution has one."""
    net = network()
    bias = torch.randn(8)
    blobs = {**blobs_of(net), 'conv1_b': bias.numpy()}
    state = convert(load_detectron(write(tmp_path / 'R-50.pkl', blobs)), 'detectron')
    other = network()
    other.load_state_dict(state)
    plain = nn.Conv2d(3, 8, 7, 2, 3)
    plain.weight, plain.bias = nn.Parameter(net.conv1.weight), nn.Parameter(bias)
    net.conv1 = plain
    x = torch.randn(1, 3, 64, 48)
    torch.testing.assert_close(other(x), net(x))


@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4])
def test_protocols_of_either_python(tmp_path, protocol):
    arrays = {
        'float': np.random.randn(2, 3).astype(np.float32),
        'double': np.random.randn(2),
        'big endian': np.arange(5, dtype='>f4'),
        'columns': np.asfortranarray(np.random.randn(3, 4)),
        'integer': np.arange(6).reshape(1, 2, 3),
        'empty': np.zeros((0, 3), np.float32),
    }
    content = {**arrays, 'scalar': np.float32(1.5), 'text': 'cfg', 'nothing': None}
    read = load_detectron(write(tmp_path / 'file.pkl', content, protocol))
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name].numpy(), array)


def test_bytes_of_python_2(tmp_path):
    """Python 2 wrote the numbers as text, which Python 3 decodes; here as its opcodes."""
    array = np.array([1.5, -2.0], np.float32)
    raw = array.tobytes()
    content = (
        b'\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85'
        b'cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U'
        + bytes([len(raw)])
        + raw
        + b'tbs.'
    )
    pickletools.dis(content, out=io.StringIO())
    (tmp_path / 'py2.pkl').write_bytes(content)
    np.testing.assert_array_equal(load_detectron(tmp_path / 'py2.pkl')['w'].numpy(), array)


class Call:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ('function', 'args', 'named'),
    [
        (os.system, ('touch {mark}',), 'posix.system'),
        (eval, ('open("{mark}", "w")',), r'(builtins|__builtin__)\.eval'),
        (getattr, (np.ndarray, 'tofile'), r'(builtins|__builtin__)\.getattr'),
        (np.load, ('{mark}',), r'numpy\.'),
        (torch.load, ('{mark}',), r'torch\.'),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_refuses_other_objects_and_executes_nothing(tmp_path, function, args, named, protocol):
    mark = tmp_path / 'executed'
    args = [arg.format(mark=mark) if isinstance(arg, str) else arg for arg in args]
    path = write(tmp_path / 'hostile.pkl', {'blobs': {'conv1_w': Call(function, *args)}}, protocol)
    with pytest.raises(UnsafeCheckpointError, match=rf'hostile\.pkl: refused, and nothing .* asks for {named}'):
        load_detectron(path)
    assert not mark.exists()
    with pytest.raises(UnsafeCheckpointError):
        convert_file(path, tmp_path / 'out.pth', 'detectron')
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize(
    'content',
    [
        b'cnumpy\nndarray\n(I999999999999\ntR.',  # numpy.ndarray called: a huge allocation
        b"cnumpy\nndarray\n}S'a'\nI1\nsb.",  # state for a class
        b'c_codecs\nencode\n(Vsecret\nVrot13\ntR.',
        b'',
        b'not a pickle',
        b'\x80\x02.',
        b'\x80\x02}q\x00',
        b'\x80\x63.',
        pickle.dumps([1, 2]),
        pickle.dumps({'blobs': {}}),
        pickle.dumps({'blobs': {'w': 1.0}}),
        pickle.dumps({'w': np.array([{}, None], dtype=object)}, 2),
        pickle.dumps({'w': np.array(['text'])}, 2),
        pickle.dumps({'w': np.zeros(2, dtype=[('a', 'f4'), ('b', 'i4')])}, 2),
    ],
    ids=range(14),
)
def test_files_that_are_no_weights(tmp_path, content):
    path = tmp_path / 'other.pkl'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'other\.pkl: '):
        load_detectron(path)


def test_every_truncation_is_an_error(tmp_path):
    whole = pickle.dumps({'blobs': {'w': np.arange(9, dtype=np.float32), 'b': np.arange(2)}}, 2)
    path = tmp_path / 'cut.pkl'
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r'cut\.pkl: truncated, or not a pickle'):
            load_detectron(path)


def test_damaged_bytes_do_no_harm(tmp_path):
    """Whatever byte changes, the file is read or refused; nothing else is raised."""
    whole = bytearray(pickle.dumps({'blobs': {'w': np.arange(9, dtype=np.float32)}}, 2))
    path = tmp_path / 'damaged.pkl'
    rng = np.random.RandomState(0)
    for _ in range(400):
        damaged = bytearray(whole)
        for place in rng.randint(len(whole), size=2):
            damaged[place] = rng.randint(256)
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(CheckpointError):
            load_detectron(path)


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pkl: no such checkpoint file'):
        load_detectron('nowhere.pkl')


def without(*names):
    return lambda blobs: [blobs.pop(name) for name in names]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (without('conv1_w'), 'no Detectron ResNet found: there is no blob conv1_w'),
        (without('res3_1_branch2b_w'), 'res3_1: the weight of conv2 is missing'),
        (without('res2_0_branch1_w'), 'res2_0: the weight of downsample.0 is missing'),
        (without('res2_1_branch2a_bn_s'), r'layer1\.1\.conv1: its norm is missing'),
        (without('res2_1_branch2a_bn_b'), r'layer1\.1\.bn1\.bias: expected \[8\], found none'),
        (
            lambda blobs: blobs.update(res2_1_branch2a_bn_s=np.ones(3, np.float32)),
            r'layer1\.1\.bn1\.weight: expected \[8\], found \[3\]',
        ),
        (
            lambda blobs: [blobs.pop(name) for name in list(blobs) if name.startswith('res5_2')],
            r'the stages have \[3, 4, 6, 2\] blocks, expected \[3, 4, 6, 3\] \(depth 50\)',
        ),
        (
            lambda blobs: [blobs.pop(name) for name in list(blobs) if name.startswith('res4_2')],
            r'res4: blocks are missing, found \[0, 1, 3, 4, 5\]',
        ),
        (lambda blobs: blobs.update(fpn_inner_w=np.ones(3)), r'1 keys .* no place .* fpn_inner_w'),
        (lambda blobs: blobs.update(conv1_w=np.full((8, 3, 7, 7), np.nan)), 'conv1_w has 1176 of 1176 values'),
    ],
)
def test_files_with_something_missing(change, message):
    blobs = blobs_of(network())
    change(blobs)
    with pytest.raises(ValueError, match=message):
        convert({name: torch.from_numpy(array) for name, array in blobs.items()}, 'detectron')


def test_the_tool(tool, tmp_path, capsys):
    path = write(tmp_path / 'R-50-GN.pkl', blobs_of(network(norm='gn'), 'gn'))
    tool.main([str(path), str(tmp_path / 'out.pth'), '--source', 'detectron'])
    assert 'Detectron ResNet-50, group norm' in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SystemExit) as end:
        tool.main([str(path), str(tmp_path / 'cut.pth'), '--source', 'detectron'])
    assert 'truncated' in str(end.value) and not (tmp_path / 'cut.pth').exists()
