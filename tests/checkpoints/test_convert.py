"""From file to file: what is written, what is recorded, what is refused; and the tool."""

import hashlib
import os
import pickle

import pytest
import torch
from layouts import classifier, resnet, with_prefix
from pickled_calls import Call

from icconv_mm import create_model
from icconv_mm.checkpoints import CheckpointError, convert, convert_file, read
from icconv_mm.checkpoints.convert import write_checkpoint


@pytest.fixture(scope='module')
def state():
    return classifier(18, 16)


@pytest.fixture
def released(tmp_path, state):
    path = tmp_path / 'ckpt.pth.tar'
    torch.save(
        {'epoch': 90, 'state_dict': with_prefix('module.', state), 'optimizer': {'param_groups': [{'lr': 0.1}]}}, path
    )
    return path


def only_input_left(folder):
    return sorted(path.name for path in folder.iterdir()) == ['ckpt.pth.tar']


def test_written_file_holds_weights_and_origin(released, state, tmp_path):
    out = tmp_path / 'new' / 'folder' / 'out.pth'
    convert_file(released, out, 'ic-conv')
    written = torch.load(out, weights_only=True)
    expected = convert(state, 'ic-conv')
    assert all(torch.equal(written['state_dict'][key], value) for key, value in expected.items())
    assert written['meta']['converted_from'] == {
        'source': 'ic-conv',
        'layout': 'classifier',
        'file': 'ckpt.pth.tar',
        'sha256': hashlib.sha256(released.read_bytes()).hexdigest(),
    }
    assert [path.name for path in out.parent.iterdir()] == ['out.pth']


def test_class_names_go_where_inferencers_look(tmp_path, state):
    path = tmp_path / 'in.pth'
    torch.save({'meta': {'CLASSES': ('cat', 'dog'), 'mmdet_version': '1.1.0'}, 'state_dict': state}, path)
    convert_file(path, tmp_path / 'out.pth', 'ic-conv')
    assert torch.load(tmp_path / 'out.pth', weights_only=True)['meta']['dataset_meta'] == {'classes': ('cat', 'dog')}


def test_a_converted_file_is_recognized(released, tmp_path):
    convert_file(released, tmp_path / 'out.pth', 'ic-conv')
    with pytest.raises(
        ValueError, match=r'out\.pth: converted already, from ckpt\.pth\.tar \(source ic-conv, sha256 [0-9a-f]{64}'
    ):
        convert_file(tmp_path / 'out.pth', tmp_path / 'again.pth', 'ic-conv')
    assert not (tmp_path / 'again.pth').exists()


def test_foreign_pickle_is_refused_and_not_executed(tmp_path, state):
    path, witness = tmp_path / 'ckpt.pth.tar', tmp_path / 'executed'
    torch.save({'state_dict': state, 'hook': Call(os.system, f'touch {witness}')}, path)
    with pytest.raises(ValueError, match=r'ckpt\.pth\.tar: refused.*system'):
        convert_file(path, tmp_path / 'out.pth', 'ic-conv')
    assert only_input_left(tmp_path)


def test_missing_file_and_wrong_content(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        convert_file(tmp_path / 'none.pth', tmp_path / 'out.pth', 'ic-conv')
    torch.save([torch.zeros(1)], tmp_path / 'ckpt.pth.tar')
    with pytest.raises(ValueError, match=r'ckpt\.pth\.tar: expected a dict of weights, found list'):
        convert_file(tmp_path / 'ckpt.pth.tar', tmp_path / 'out.pth', 'ic-conv')
    torch.save({'conv1.weight': torch.zeros(1)}, tmp_path / 'ckpt.pth.tar')
    with pytest.raises(ValueError, match=r'ckpt\.pth\.tar: the file holds a ResNet without sub-convolutions'):
        convert_file(tmp_path / 'ckpt.pth.tar', tmp_path / 'out.pth', 'ic-conv')
    assert only_input_left(tmp_path)


def test_a_failing_write_leaves_the_old_file(tmp_path):
    out = tmp_path / 'out.pth'
    out.write_bytes(b'old')
    with pytest.raises((pickle.PicklingError, AttributeError)):
        write_checkpoint({'state_dict': {'weight': torch.zeros(1000)}, 'bad': lambda: None}, out)
    assert out.read_bytes() == b'old'
    assert [path.name for path in tmp_path.iterdir()] == ['out.pth']


def test_tool_prints_what_it_renamed(tool, released, tmp_path, capsys):
    tool.main([str(released), str(tmp_path / 'out.pth'), '--source', 'ic-conv'])
    printed = capsys.readouterr().out
    assert 'layout: classifier' in printed
    assert printed.count('96 -> 8') == 2  # conv1 and conv2 of 8 blocks, 12 sub-convolutions each
    assert 'head.fc' in printed
    assert (tmp_path / 'out.pth').exists()


def test_tool_refuses_unmatched_keys_unless_told(tool, tmp_path, capsys):
    path, out = tmp_path / 'ckpt.pth.tar', tmp_path / 'out.pth'
    state = with_prefix('backbone.', resnet(18, 8)) | {f'neck.p{i}.weight': torch.zeros(2, 3) for i in (2, 3)}
    torch.save(state, path)
    with pytest.raises(SystemExit) as end:
        tool.main([str(path), str(out)])
    captured = capsys.readouterr()
    assert 'neck.p2.weight' in captured.out and '[2, 3]' in captured.out
    assert '--allow-unmatched' in str(end.value) and 'Nothing was written' in str(end.value)
    assert only_input_left(tmp_path)

    tool.main([str(path), str(out), '--allow-unmatched'])
    assert not any('neck' in key for key in torch.load(out, weights_only=True)['state_dict'])

    rules = tmp_path / 'rules.yml'
    rules.write_text("- {pattern: 'neck\\.p.*', replace: null}")
    tool.main([str(path), str(out), '--rename-rules', str(rules)])
    assert 'dropped by a rule' in capsys.readouterr().out


def test_tool_names_the_file_that_is_wrong(tool, released, tmp_path):
    released.write_bytes(released.read_bytes()[:1000])
    with pytest.raises(SystemExit) as end:
        tool.main([str(released), str(tmp_path / 'out.pth')])
    assert 'ckpt.pth.tar: ' in str(end.value)


def test_safetensors_in_and_out(released, state, tmp_path):
    out, again = tmp_path / 'weights.safetensors', tmp_path / 'again.pth'
    convert_file(released, out, 'ic-conv')
    convert_file(released, again, 'ic-conv')
    written, expected = read(out), read(again)['state_dict']
    assert written.keys() == expected.keys() and all(torch.equal(written[key], expected[key]) for key in expected)
    net = create_model('ic_resnet18', pattern='dense', checkpoint_path=out, base_channels=16, num_classes=10)
    assert torch.equal(net.backbone.conv1.weight, state['conv1.weight'])
    shared = torch.rand(3)
    write_checkpoint({'state_dict': {'a': shared, 'b': shared}}, out)  # as stages of a cascade share a head
    assert all(torch.equal(read(out)[key], shared) for key in 'ab')
    out.write_bytes(out.read_bytes()[:50])
    with pytest.raises(CheckpointError, match=r'weights\.safetensors: truncated, or not a safetensors file'):
        read(out)
