"""Filters that move to patterns of whole blocks: the least cost, the network's function, files, and the tool."""

import itertools
import re

import cv2
import numpy as np
import pytest
import torch
from layouts import classifier
from random_weights import with_random_weights

from icconv_mm import create_model
from icconv_mm.backbones import ICResNet, ICResNeXt
from icconv_mm.checkpoints import convert, convert_file
from icconv_mm.checkpoints.alignment import align_weights, patterns_in
from icconv_mm.errors import InputError
from icconv_mm.ops.export_form import plan
from icconv_mm.patterns import DilationPattern, read_patterns, write_patterns
from icconv_mm.patterns.alignment import aligned_dilations, dilation_of_each
from icconv_mm.patterns.channel_order import runs_of

pytest.importorskip('scipy')

NETWORKS = {
    'basic blocks': (ICResNet, {'depth': 18}),
    'bottlenecks': (
        ICResNet,
        {'depth': 50, 'num_stages': 2, 'strides': (1, 2), 'dilations': (1, 1), 'out_indices': (1,)},
    ),
    'grouped': (ICResNeXt, {'depth': 50, 'groups': 8, 'base_width': 4, 'out_indices': (3,)}),
}


def is_aligned(pattern: DilationPattern, block: int) -> bool:
    rest = pattern.out_channels % block
    return all((n - rest * (dilation == (1, 1))) % block == 0 for dilation, n in pattern.histogram().items())


@pytest.mark.parametrize('seed', range(4))
def test_no_other_blocks_cost_less(seed):
    torch.manual_seed(seed)
    weight = torch.randn(7, 2, 3, 3) * torch.rand(7, 1, 1, 1)
    pattern = DilationPattern([(3, 1, 1), (2, 1, 4), (2, 3, 3)])
    old, choices = dilation_of_each(pattern), [(1, 1), (1, 4), (3, 3)]

    def cost(dilations):
        return float((weight.flatten(1).norm(dim=1) * (dilations - old).float().norm(dim=1)).sum())

    every = (torch.tensor(chosen) for chosen in itertools.product(choices, repeat=7))
    least = min(cost(dilations) for dilations in every if is_aligned(runs_of(dilations), 3))
    dilations = aligned_dilations(weight, pattern, 3)
    assert is_aligned(runs_of(dilations), 3) and cost(dilations) == pytest.approx(least, rel=1e-5)


def test_the_weakest_filters_move_to_the_nearest_dilation():
    weight = torch.ones(8, 1, 3, 3)
    weight[4] = 0.1
    pattern = DilationPattern([(3, 1, 1), (2, 1, 2), (3, 4, 4)])
    # (1, 2) cannot stay with two: the weak one leaves for (4, 4), the other for (1, 1), which is nearer
    assert aligned_dilations(weight, pattern, 4).tolist() == [[1, 1]] * 4 + [[4, 4]] * 4
    aligned = DilationPattern([(4, 1, 1), (4, 4, 4)])
    assert torch.equal(aligned_dilations(weight, aligned, 4), dilation_of_each(aligned))


@pytest.mark.parametrize('by', ['names', 'model'])
@pytest.mark.parametrize('network', NETWORKS)
@torch.no_grad()
def test_sorted_channels_compute_what_moved_filters_compute(network, by):
    torch.manual_seed(0)
    kind, settings = NETWORKS[network]
    pattern = 'geometric_d4'
    original = with_random_weights(kind(**settings, pattern=pattern, base_channels=16))
    before = {key: value.clone() for key, value in original.state_dict().items()}
    old = patterns_in(original)
    state, layers = align_weights(before, list(old.values()), 8, original if by == 'model' else None)
    assert [layer.name for layer in layers] == list(old)
    assert all(torch.equal(before[key], value) for key, value in original.state_dict().items())
    assert all(is_aligned(layer.pattern, 8) for layer in layers) and any(layer.moved for layer in layers)

    moved = []
    for (name, pattern), layer in zip(old.items(), layers):
        module = original.get_submodule(name)
        dilations = aligned_dilations(module.weight, pattern, 8, module.groups)
        moved.append(runs_of(dilations).for_convolution(module.out_channels, module.groups))
        assert moved[-1].histogram() == layer.pattern.histogram()
        assert layer.moved == (dilation_of_each(moved[-1]) != dilation_of_each(pattern)).any(1).sum()
        if name.endswith('conv2') and network == 'bottlenecks':
            assert len(layer.pattern) == len(layer.pattern.histogram())
        # an export needs as many convolutions for channels in any order
        assert plan(layer.pattern.flat, 64).convolutions == plan(moved[-1].flat, 64).convolutions
    expected = kind(**settings, pattern=moved, base_channels=16).eval()
    expected.load_state_dict(before)
    aligned = kind(**settings, pattern=[layer.pattern for layer in layers], base_channels=16).eval()
    aligned.load_state_dict(state)
    x = torch.randn(2, 3, 70, 58)
    for got, wanted in zip(aligned(x), expected(x)):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())


def test_networks_that_cannot_be_found_are_refused():
    with pytest.raises(InputError, match='align: no inception convolutions found'):
        align_weights({'stem.weight': torch.rand(4, 4, 3, 3)}, 'geometric_d2', 2)
    weight = torch.rand(4, 4, 3, 3)
    with pytest.raises(InputError, match=r"ResNets under 'a\.', 'b\.'"):
        align_weights({f'{name}.layer1.0.conv1.weight': weight for name in 'ab'}, 'geometric_d2', 2)


@pytest.fixture
def released(tmp_path):
    """A released file, and its pattern."""
    torch.save({'state_dict': classifier(18, 16)}, tmp_path / 'in.pth')
    counts = convert(classifier(18, 16), 'ic-conv')
    channels = [len(weight) for name, weight in counts.items() if weight.ndim == 4 and weight.shape[2] == 3]
    dilations = [(h, w) for h in (1, 2, 3) for w in (1, 2, 3, 4)]
    runs = [[count - 11 * max(1, count // 24), *[max(1, count // 24)] * 11] for count in channels]
    write_patterns(
        [DilationPattern([(n, *d) for n, d in zip(numbers, dilations)]) for numbers in runs], tmp_path / 'k.json'
    )
    return tmp_path / 'in.pth', tmp_path / 'k.json'


def test_tool_aligns_a_released_file_and_then_its_own(tool, released, tmp_path, capsys):
    file, pattern = map(str, released)
    out = tmp_path / 'new' / 'eight.pth'
    tool.main([file, str(out), '--pattern', pattern, '--align', '8'])
    printed = capsys.readouterr().out
    assert 'blocks of 8: ' in printed and 'backbone.layer4.1.conv2' in printed
    patterns = read_patterns(out.with_suffix('.json'))
    assert all(is_aligned(pattern, 8) for pattern in patterns)
    # sorted by dilation where nothing but the next convolution reads the channels: in each block the first layer
    assert all(len(pattern) == len(pattern.histogram()) for pattern in patterns[::2])
    written = torch.load(out, weights_only=True)
    assert written['meta']['aligned'] == 8
    create_model('ic_resnet18', pattern=patterns, checkpoint_path=str(out), base_channels=16, num_classes=10)
    for key, value in convert(classifier(18, 16), 'ic-conv').items():  # every filter is there, and no other one
        assert torch.equal(written['state_dict'][key].flatten().sort()[0], value.flatten().sort()[0])

    written['meta']['dataset_meta'] = {'classes': ('cat',)}
    torch.save(written, out)
    again = tmp_path / 'sixteen.pth'
    arguments = [str(out), str(again), '--source', 'icconv-mm', '--align', '16']
    tool.main([*arguments, '--pattern', str(out.with_suffix('.json'))])
    assert all(is_aligned(pattern, 16) for pattern in read_patterns(again.with_suffix('.json')))
    assert torch.load(again, weights_only=True)['meta']['dataset_meta'] == {'classes': ('cat',)}


def test_the_config_of_an_own_file_has_its_pattern(tool, tmp_path, capsys):
    settings = dict(depth=18, base_channels=16, out_indices=(1, 3))
    backbone = dict(type='icconv_mm.ICResNet', pattern='geometric_d3', align=4, **settings)
    head = dict(type='LinearClsHead', num_classes=2, in_channels=128)
    config = tmp_path / 'config.py'
    model = dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)
    config.write_text(f"default_scope = 'mmpretrain'\nmodel = {model!r}\n")
    model = tool._options_of(str(config), 'icconv-mm')['model']
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'epoch_1.pth')
    out = tmp_path / 'aligned.pth'
    arguments = [str(tmp_path / 'epoch_1.pth'), str(out), '--source', 'icconv-mm', '--config', str(config)]
    (tmp_path / 'images').mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        cv2.imwrite(str(tmp_path / f'images/{number}.png'), image)
    measured = ['--images', str(tmp_path / 'images')]
    tool.main([*arguments, '--align', '4', *measured])
    changes = re.findall(r'map (\d) of the backbone changes by (\S+)% of its norm on 2 images', capsys.readouterr().out)
    assert [number for number, _ in changes] == ['0', '1'] and all(float(change) < 0.1 for _, change in changes)
    assert read_patterns(out.with_suffix('.json'))[::3] == list(patterns_in(model).values())[::3]
    tool.main([*arguments, '--align', '16', *measured])
    assert all(is_aligned(pattern, 16) for pattern in read_patterns(out.with_suffix('.json')))
    printed = re.findall(r'changes by (\S+)%', capsys.readouterr().out)
    aligned = ICResNet(pattern=read_patterns(out.with_suffix('.json')), **settings).eval()
    state = torch.load(out, weights_only=True)['state_dict']
    aligned.load_state_dict({k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')})
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        pairs = list(zip(aligned(x), model.backbone.eval()(x)))
    expected = [float((new - old).norm() / old.norm()) for new, old in pairs]
    assert [float(percent) / 100 for percent in printed] == pytest.approx(expected, abs=1e-3) and min(expected) > 0.01


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--source', 'icconv-mm'], 'such a file loads as it is; it is for --align'),
        (['--align', '8', '--pattern', 'k.json', '--images', '.'], '--images needs --align and --config'),
        (['--align', '8'], '--align needs --pattern, or a --config with a pattern'),
    ],
)
def test_tool_names_the_option_that_is_missing(tool, released, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        tool.main([str(released[0]), str(tmp_path / 'out.pth'), *options])
    assert message in capsys.readouterr().err


def test_nothing_is_written_if_the_pattern_does_not_fit(released, tmp_path):
    file, pattern = released
    layers = [read_patterns(pattern)[0]] * 3
    with pytest.raises(InputError, match='3 layers'):
        convert_file(file, tmp_path / 'out.pth', 'ic-conv', pattern=layers, align=8)
    with pytest.raises(InputError, match='align needs the pattern of the weights'):
        convert_file(file, tmp_path / 'out.pth', 'ic-conv', align=8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in.pth', 'k.json']
