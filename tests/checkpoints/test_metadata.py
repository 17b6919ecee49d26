"""What a checkpoint says beside its weights is used, or refused in one message; a run that continues harms nothing."""

from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer

from icconv_mm.checkpoints import loader, metadata
from icconv_mm.checkpoints.metadata import class_names, dataset_meta_of, meta_of
from icconv_mm.errors import InputError


@pytest.mark.parametrize(
    ('checkpoint', 'message'),
    [
        ([], 'the checkpoint is a list, expected a dict'),
        ({'meta': [1]}, 'meta is a list, expected a dict'),
        ({'meta': {'dataset_meta': 5}}, 'meta.dataset_meta is a int, expected a dict'),
        ({'meta': {'dataset_meta': {'classes': 5}}}, 'meta.dataset_meta.classes is 5, expected a list of class names'),
        ({'meta': {'dataset_meta': {'CLASSES': [b'a']}}}, 'expected a list of class names'),
        ({'meta': {'dataset_meta': {'classes': [torch.ones(2)]}}}, 'expected a list of class names'),
        ({'meta': {'dataset_meta': {'palette': [(1, 2)]}}}, r'palette is \[\(1, 2\)\], expected colours'),
        ({'meta': {'dataset_meta': {'palette': [[1], [1, 2]]}}}, 'expected colours'),
        ({'meta': {'dataset_meta': {'palette': [[10**400]]}}}, 'expected colours'),
    ],
)
def test_other_forms_are_refused(checkpoint, message):
    with pytest.raises(InputError, match=message):
        dataset_meta_of(checkpoint)


def test_forms_that_libraries_write():
    assert meta_of({'state_dict': {}}) == {}
    read = dataset_meta_of(
        {'meta': {'dataset_meta': {'CLASSES': ('a', 'b'), 'palette': [(1, 2, 3)], 'from_file': 'x'}}}
    )
    assert read == {'classes': ('a', 'b'), 'palette': [(1, 2, 3)]}
    assert dataset_meta_of({'meta': {'dataset_meta': {'palette': 'coco'}}})['palette'] == 'coco'
    assert class_names([{'id': 1, 'name': 'person'}], 'classes') == ('person',)
    assert class_names(None, 'classes') == ()


NESTED: list = []
for _ in range(5000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ('meta', 'message'),
    [
        ({}, 'it has no meta.epoch'),
        ({'epoch': 0}, 'it has no meta.iter'),
        ({'epoch': 0, 'iter': 10**12}, 'meta.iter is 1000000000000, expected a number from 0 to 20'),
        ({'epoch': 0, 'iter': -5}, 'meta.iter is -5'),
        ({'epoch': 'x', 'iter': 3}, "meta.epoch is 'x'"),
        ({'epoch': 0, 'iter': True}, 'meta.iter is True'),
        ({'epoch': 0, 'iter': 3, 'seed': 'abc'}, "meta.seed is 'abc'"),
        ({'epoch': 0, 'iter': 3, 'seed': 2**32}, 'meta.seed is 4294967296'),
        ({'epoch': 0, 'iter': 3, 'seed': 1 << 20_000}, 'meta.seed is of type int'),  # more digits than Python writes
        ({'epoch': NESTED, 'iter': 3}, r'meta.epoch is (of type list|\[{40})'),
    ],
)
def test_progress(meta, message):
    with pytest.raises(InputError, match=message):
        metadata.check_progress({'meta': meta}, None, 20)


def test_progress_of_a_run():
    metadata.check_progress({'meta': {'epoch': 0, 'iter': 20, 'seed': None}}, None, 20)
    metadata.check_progress({'meta': {'epoch': 3, 'iter': 3000, 'seed': 5}}, 12, None)
    assert metadata.seed_of({'meta': {'seed': 5}}) == 5 and metadata.seed_of({}) is None


def hub(**info):
    return {'log_scalars': {'loss': HistoryBuffer()}, 'runtime_info': info, 'resumed_keys': {'loss': True}}


def test_best_checkpoints_of_other_folders_are_not_deleted(tmp_path):
    work, copied = tmp_path / 'work', str(tmp_path / 'gone/best_b.pth')
    work.mkdir()
    inside, outside = str(work / 'best_a.pth'), str(tmp_path / 'thesis.pth')
    for path in (inside, outside, work / 'best_b.pth'):
        Path(path).touch()
    checkpoint = {'message_hub': hub(best_ckpt=outside, best_ckpt_AP=inside, best_ckpt_AR=copied, cfg='text')}
    assert metadata.check_message_hub(checkpoint, [work]) == [outside]
    expected = {'best_ckpt_AP': inside, 'best_ckpt_AR': str(work / 'best_b.pth'), 'cfg': 'text'}
    assert checkpoint['message_hub']['runtime_info'] == expected


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'message_hub is missing'),
        ({'log_scalars': {}}, 'message_hub.resumed_keys is missing'),
        ({**hub(), 'log_scalars': {'loss': 1}}, r"log_scalars\['loss'\] is a int, expected a HistoryBuffer"),
        (hub(keep_ckpt_ids=['../../x']), 'keep_ckpt_ids is .* expected a list of integers'),
        (hub(best_ckpt=5), 'best_ckpt is 5, expected a path'),
    ],
)
def test_logs(content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        metadata.check_message_hub({'message_hub': content}, [tmp_path])


def test_code_under_meta_config_does_not_reach_mmengine(tmp_path):
    """``Runner.resume`` runs it as a Python file."""
    path = tmp_path / 'a.pth'
    torch.save({'meta': {'config': 'import os', 'epoch': 1}, 'state_dict': {}}, path)
    assert loader.load_from_local(str(path))['meta'] == {'epoch': 1}
