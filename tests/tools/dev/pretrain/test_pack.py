"""Checkpoints become the weights of the package: what they hold, how large they are, and their card."""

import importlib
import re
import shutil

import pytest
import torch

pytest.importorskip('mmdet')

from icconv_mm.checkpoints import reading, safetensors, shipped
from icconv_mm.models import create_model

PACKAGE = shipped.FOLDER


@pytest.fixture
def pack(tiny, weights_folder):
    shutil.copy(PACKAGE / 'README.md', weights_folder)
    return importlib.import_module('pack')


def saved(path, **more):
    """Saves a classifier of three classes as the recipe does; returns its network."""
    torch.manual_seed(0)
    network = create_model('small', num_classes=3).eval()
    meta = dict(command='python a.py /b/c/data --out d/e', recipe=dict(size=64), history=[dict(top1=12.34)])
    meta['dataset_meta'] = dict(classes=['goldfish', 'bullfrog', 'n03'])
    torch.save(dict(state_dict=network.state_dict(), meta=meta, **more), path)
    return network


def test_a_classifier(pack, weights_folder, tmp_path, capsys):
    """It is half as large, says where it is from, and computes the same but for what is printed."""
    network = saved(tmp_path / 'classifier.pth', optimizer={'state': {}}, state_dict_ema={})
    pack.main(['small', str(tmp_path / 'classifier.pth'), '--commit', 'abc'])
    difference = float(re.search(r'float16 changes outputs by (\S+) of', capsys.readouterr().out)[1])
    file = weights_folder / 'small.safetensors'
    assert file.stat().st_size < 0.52 * (tmp_path / 'classifier.pth').stat().st_size
    written, metadata = reading.read(file), reading.read_metadata(file)
    assert {value.dtype for value in written.values() if value.ndim > 1} == {torch.float16}
    assert {value.dtype for value in written.values() if value.ndim == 1} == {torch.float32}
    expected = {key for key in network.state_dict() if not key.endswith('num_batches_tracked')}
    assert written.keys() == expected
    assert metadata['command'] == 'python a.py data --out d/e' and metadata['result'] == 'top-1 12.3 %'
    assert metadata['num_classes'] == '3' and metadata['commit'] == 'abc' and 'ImageNet' in metadata['terms']
    images = torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    loaded = create_model('small', pretrained=True).eval()
    with torch.no_grad():
        assert 0 < float((loaded(images) - network(images)).abs().max()) == pytest.approx(difference, rel=0.1)


def test_the_card_has_a_row_of_each_file(pack, weights_folder, tmp_path):
    saved(tmp_path / 'classifier.pth')
    for _ in range(2):  # again: the same
        pack.main(['small', str(tmp_path / 'classifier.pth')])
        card = (weights_folder / 'README.md').read_text()
        assert card.count('| `icconv_mm://small` |') == 1 and card.startswith('# Weights that come with the package\n')
    pack.main(['small', str(tmp_path / 'classifier.pth'), '--result', 'top-1 1 %'])
    assert 'top-1 1 %' in (weights_folder / 'README.md').read_text()


def test_the_card_of_the_package_is_of_its_files(pack, monkeypatch):
    """No more than the limit, and each row as the file says it, also where the package has no file."""
    monkeypatch.setattr(shipped, 'FOLDER', PACKAGE)
    assert (PACKAGE / 'README.md').read_text().endswith(f'{pack._TABLE}\n{pack.table()}')
    assert sum(path.stat().st_size for path in PACKAGE.glob('*.safetensors')) <= pack.LIMIT
    names = {path.name for path in PACKAGE.iterdir()} - {'README.md'}
    assert all(name.endswith('.safetensors') for name in names)


def test_no_weight_depends_on_the_classes(pack):
    corrections = torch.rand(3, 4, 8)
    heads = {
        'roi_head.bbox_head.fc_cls.weight': torch.ones(4, 8),
        'roi_head.bbox_head.fc_reg.weight': corrections.flatten(0, 1),
        'rpn_head.rpn_cls.weight': torch.ones(3, 8, 1, 1),
        'neck.lateral_convs.0.bn.num_batches_tracked': torch.tensor(3),
        'backbone.conv1.weight': torch.full((1, 3, 7, 7), 1e6),
    }
    assert pack.task_of(heads) == 'detection'
    found = pack.packed(heads)
    assert list(found) == ['roi_head.bbox_head.fc_reg.weight', 'rpn_head.rpn_cls.weight', 'backbone.conv1.weight']
    torch.testing.assert_close(found['roi_head.bbox_head.fc_reg.weight'], corrections.mean(0).half())
    assert found['backbone.conv1.weight'].dtype == torch.float32, 'no float16 has its values'
    shared = {'roi_head.bbox_head.fc_reg.weight': torch.ones(4, 8), 'roi_head.bbox_head.fc_reg.bias': torch.ones(4)}
    assert pack.packed(shared).keys() == shared.keys()


def test_what_is_not_packed(pack, weights_folder, tmp_path):
    torch.save(dict(state_dict={'decode_head.a': torch.ones(1)}), tmp_path / 'other.pth')
    with pytest.raises(SystemExit, match='neither a classifier nor a detector of two stages'):
        pack.main(['small', str(tmp_path / 'other.pth')])
    saved(tmp_path / 'classifier.pth')
    (weights_folder / 'large.safetensors').write_bytes(safetensors.serialized(dict(a=torch.zeros(3_000_000))))
    with pytest.raises(SystemExit, match=r'bytes of weights, at most \d+ come with the package'):
        pack.main(['small', str(tmp_path / 'classifier.pth')])
    assert not (weights_folder / 'small.safetensors').exists()


@pytest.mark.slow
def test_a_detector(pack, weights_folder, tmp_path, capsys):
    """All but its classes, by the config beside its checkpoint; its result and its command are given."""
    images, out = tmp_path / 'images', tmp_path / 'detectors'
    importlib.import_module('stitched').main(
        [str(tmp_path / 'tiny'), '--out', str(images), '--train', '6', '--val', '2', '--size', '64']
    )
    importlib.import_module('transfer').main([str(images), '--out', str(out), '--size', '64', '--epochs', '1'])
    (checkpoint,) = out.glob('*/epoch_1.pth')
    with pytest.raises(SystemExit, match=r'--result.*does not say it'):
        pack.main(['small', str(checkpoint)])
    pack.main(['small', str(checkpoint), '--result', 'box AP 1 %', '--command', 'python transfer.py'])
    file = weights_folder / 'small_detection.safetensors'
    written, whole = reading.read(file), reading.read(checkpoint)['state_dict']
    left = {key for key in whole if key not in written and not key.endswith('num_batches_tracked')}
    assert left == {'roi_head.bbox_head.fc_cls.weight', 'roi_head.bbox_head.fc_cls.bias'}
    metadata = reading.read_metadata(file)
    assert metadata['num_classes'] == '3' and metadata['task'] == 'detection' and metadata['result'] == 'box AP 1 %'
    network = create_model('small', pretrained=True, features_only=True)
    assert torch.equal(network.conv1.weight, whole['backbone.conv1.weight'].half().float())
