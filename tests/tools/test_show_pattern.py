import importlib
import io

import pytest
import torch
from rich.console import Console

from icconv_mm.backbones import ICResNet, ICResNeXt
from icconv_mm.patterns import DilationPattern, load_pattern, write_patterns

R18 = [64] * 4 + [128] * 4 + [256] * 4 + [512] * 4
SMALL = ['--size', '65', '--count', '1']


@pytest.fixture(scope='module')
def tool():
    return importlib.import_module('show_pattern')


@pytest.fixture
def pattern(tmp_path):
    write_patterns(load_pattern('geometric_d2', R18), tmp_path / 'own.json')
    return str(tmp_path / 'own.json')


def test_writes_a_table_and_a_image(tool, pattern, tmp_path, capsys):
    image = tmp_path / 'own.png'
    tool.main([pattern, '--out', str(image), *SMALL])
    out = capsys.readouterr().out
    assert 'standard convolutions for these 16 layers' in out
    assert 'block: 32 channels; an exported IC-ResNet-50 with blocks of 32 takes ' in out
    assert '(resnet18)' in out and 'layer4.1.conv2' in out and '50%' in out
    assert 'effective receptive field of resnet18:' in out and 'effective receptive field of ' + pattern in out
    assert image.read_bytes().startswith(b'\x89PNG')


def test_weights_of_a_checkpoint_are_shown(tool, pattern, tmp_path):
    torch.save({'state_dict': ICResNet(18, 'dense').state_dict()}, tmp_path / 'net.pth')
    tool.main([pattern, '--checkpoint', f'{tmp_path}/net.pth', *SMALL])
    torch.save({'state_dict': ICResNet(34, 'dense').state_dict()}, tmp_path / 'net.pth')
    with pytest.raises(SystemExit) as end:
        tool.main([pattern, '--checkpoint', f'{tmp_path}/net.pth', *SMALL])
    assert 'does not fit ICResNet' in str(end.value)


@pytest.mark.parametrize(
    ('backbone', 'name'), [(lambda p: ICResNet(34, p), 'resnet34'), (lambda p: ICResNeXt(50, p), 'resnext50')]
)
def test_the_network_of_a_pattern_is_found(tool, backbone, name, tmp_path):
    with torch.device('meta'):
        layers = [m.pattern for m in backbone('geometric_d3').modules() if hasattr(m, 'pattern')]
    write_patterns(layers, tmp_path / 'own.json')
    assert tool.fitting_network(str(tmp_path / 'own.json')) == name


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['geometric_d4'], "'geometric_d4' fits every network: say which with --network, one of resnet18, resnet34, "),
        (['nonsense'], "'nonsense' is neither a file nor"),
        (['{folder}/bad.json'], 'layer 0: malformed key'),
        (['{folder}/gone.json'], 'pattern file: no such file: '),
    ],
)
def test_bad_patterns_are_refused_in_one_message(tool, arguments, message, tmp_path):
    (tmp_path / 'bad.json').write_text('[{"0": 4}]')
    with pytest.raises(SystemExit) as end:
        tool.main([argument.format(folder=tmp_path) for argument in arguments])
    assert message in str(end.value)


PATTERNS = [DilationPattern([(6, 1, 1), (2, 3, 1)]), DilationPattern([(1, 1, 2), (3, 4, 4)])]


def test_table(tool):
    console = Console(width=100, file=io.StringIO())
    console.print(tool.pattern_table(PATTERNS, 'two layers', ['first.conv', 'second.conv']))
    rows = [line.strip('│').split('│') for line in console.file.getvalue().splitlines() if line.startswith('│')]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ['first.conv', '8', '2', '1.50', '1.00', '3', '75%'],
        ['second.conv', '4', '2', '3.25', '3.50', '4', '0%'],
    ]


@pytest.mark.parametrize(
    ('layers', 'block', 'price'),
    [
        ([[(64, 1, 1), (64, 2, 2)], [(32, 1, 1), (96, 2, 1)]], 32, 32),
        ([[(16, 1, 1), (32, 2, 2), (16, 1, 1)], [(64, 3, 3)]], 32, 32),  # runs of one dilation count together
        ([[(16, 1, 1), (48, 2, 2)], [(64, 1, 1)]], 16, 16),
        ([[(24, 1, 1), (40, 2, 2)], [(32, 1, 1), (32, 2, 2)]], 8, 8),
        ([[(64, 1, 1)], [(3, 1, 1), (61, 2, 2)]], 1, 1),
    ],
)
def test_the_price_is_that_of_the_smallest_block(tool, layers, block, price):
    message = tool.block_message([DilationPattern(layer) for layer in layers])
    assert message.startswith(f'block: {block} channels; ')
    assert all(f'{ratio} in {runtime}' in message for runtime, ratio in tool.PRICES[price].items())
