"""What a checkpoint says beside its weights is used, or refused in one sentence."""

import pytest
import torch

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
