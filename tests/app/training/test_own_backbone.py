"""The backbone of a config for one's own images, and the weights that it starts from."""

import labelled
import pytest
from shipped_weights import fill

from icconv_mm.app import commands
from icconv_mm.app.training import own_backbone
from icconv_mm.app.training.own_backbone import Start, backbone_of, default_backbone, learning_rate, start_of
from icconv_mm.errors import InputError


def test_backbones_by_name():
    norms = dict(norm_eval=False)  # as in all configs for one's own images, whatever the library does
    assert backbone_of('ic_resnet50') == dict(type='icconv_mm.ICResNet', depth=50, pattern='geometric_d4', **norms)
    assert backbone_of('small') == dict(
        type='icconv_mm.ICResNet',
        depth=18,
        base_channels=24,
        stem_channels=24,
        pattern='geometric_d4',
        align=16,
        **norms,
    )
    assert backbone_of('ic_resnet50_k9')['pattern'] == 'detection/ic_resnet50_k9'
    expected = dict(type='icconv_mm.PyConvResNet', depth=18, two_pyconvs=True, **norms)
    assert backbone_of('pyconv_resnet18_two') == expected
    with pytest.raises(InputError, match='backbone: nothing is called resnet5; there are: ic_resnet101'):
        backbone_of('resnet5')


def test_what_it_costs_to_have_no_weights(monkeypatch):
    said = []
    monkeypatch.setenv('ICCONV_MM_OFFLINE', '1')
    monkeypatch.setattr('torch.hub.get_dir', lambda: '/nowhere')
    assert start_of('pyconv_resnet50', 'detection', 'auto', said.append) == Start()
    assert start_of('ic_resnet50', 'detection', 'auto', said.append) == Start()
    assert 'none are published for pyconv_resnet50' in said[0] and 'torchvision://resnet50 cannot be fetched' in said[1]
    assert all('several times the images and epochs' in line for line in said)
    given = start_of('ic_resnet50', 'detection', 'torchvision://resnet50', said.append)
    assert given == Start(dict(type='Pretrained', checkpoint='torchvision://resnet50'))
    with pytest.raises(InputError, match=r'pretrained: no such file: none\.pth'):
        start_of('ic_resnet50', 'detection', 'none.pth', said.append)


BACKBONE, DETECTOR = 'icconv_mm://small', 'icconv_mm://small_detection'


@pytest.mark.parametrize(
    ('there', 'task', 'expected'),
    [
        ('both', 'detection', Start(load_from=DETECTOR)),
        ('both', 'semantic', Start(load_from=DETECTOR)),
        ('both', 'classification', Start(dict(type='Pretrained', checkpoint=BACKBONE))),
        ('detection', 'classification', Start(dict(type='Pretrained', checkpoint=DETECTOR))),
        ('classification', 'pose', Start(dict(type='Pretrained', checkpoint=BACKBONE))),
    ],
)
def test_weights_of_the_package_are_taken_and_printed(weights_folder, there, task, expected):
    fill(weights_folder, 'small', *[] if there == 'both' else [there])
    said = []
    assert start_of('small', task, 'auto', said.append) == expected
    address = expected.load_from or expected.init_cfg['checkpoint']
    words = 'trained on drawn images; --pretrained none starts from random numbers'
    assert said == [f'weights: {address}, {words}']
    assert start_of('small', task, 'none', said.append) == Start()
    assert said[1:] == ['weights: small starts from random numbers']
    assert start_of('small_s8', task, 'auto', said.append) == Start(), 'another backbone'
    assert start_of('small', task, 'auto', said.append, 'a.pth') == Start(), 'another checkpoint of the whole network'
    assert start_of('small', task, address, said.append) == Start(dict(type='Pretrained', checkpoint=address))
    with pytest.raises(
        InputError, match=f'icconv_mm://big: icconv_mm has no such weights; there are: .*{address[12:]}'
    ):
        start_of('small', task, 'icconv_mm://big', said.append)


def test_weights_of_a_safetensors_file(weights_folder):
    """Such as timm and transformers publish them."""
    fill(weights_folder, 'small', 'classification')
    file = weights_folder / 'small.safetensors'
    init = dict(type='Pretrained', checkpoint=str(file), prefix='backbone.')
    assert start_of('small', 'detection', str(file), print) == Start(init)


@pytest.mark.parametrize(
    ('base', 'is_deep', 'rates'),
    [(24, False, (2e-3, 2e-3)), (64, False, (1e-3, 2e-4)), (64, True, (5e-4, 2e-4)), (24, True, (5e-4, 2e-4))],
)
def test_learning_rates(base, is_deep, rates):
    starts = Start(), Start(load_from='a.pth'), Start(dict(checkpoint='a.pth'))
    found = [learning_rate(dict(base_channels=base), is_deep, start) for start in starts]
    assert found == [rates[0], rates[1], rates[1]]


def test_a_cpu_learns_a_small_network(monkeypatch):
    for device, expected in (('cpu', 'small'), ('cuda', 'ic_resnet50')):
        monkeypatch.setattr(own_backbone, 'get_device', lambda device=device: device)
        assert default_backbone() == expected


@pytest.mark.parametrize('backbone', ['small', 'ic_resnet50'])
def test_weights_of_the_whole_network_are_reported_and_no_others_fetched(tmp_path, backbone, monkeypatch, capsys):
    pytest.importorskip('mmdet')
    monkeypatch.setattr(own_backbone, '_fetched', lambda name: pytest.fail(f'{name} was fetched'))
    command = ['train', str(labelled.voc(tmp_path / 'data')), '--task', 'detection', '--backbone', backbone]
    command += ['--work-dir', str(tmp_path / 'run'), '--cfg-options', f'load_from={tmp_path}/detector.pth']
    with pytest.raises(SystemExit, match='load_from: no such file'):
        commands.main([*command, '--epochs', '1'])
    printed = capsys.readouterr().out
    assert f'weights: those of {tmp_path}/detector.pth, for the whole network\n' in printed
    assert 'random numbers' not in printed
