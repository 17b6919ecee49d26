"""The backbone of a config for one's own images, and the weights that it starts from."""

import labelled
import pytest

from icconv_mm.app import commands
from icconv_mm.app.training import own_backbone
from icconv_mm.app.training.own_backbone import backbone_of, weights_of
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
    assert weights_of('pyconv_resnet50', 'auto', said.append) is None
    assert weights_of('ic_resnet50', 'auto', said.append) is None
    assert 'none are published for pyconv_resnet50' in said[0] and 'torchvision://resnet50 cannot be fetched' in said[1]
    assert all('several times the images and epochs' in line for line in said)
    assert weights_of('ic_resnet50', 'torchvision://resnet50', said.append)['checkpoint'] == 'torchvision://resnet50'
    with pytest.raises(InputError, match=r'pretrained: no such file: none\.pth'):
        weights_of('ic_resnet50', 'none.pth', said.append)


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
