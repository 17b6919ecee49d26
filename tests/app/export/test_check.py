"""What the check of a file compares, and of which images."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from described import described, random_image
from torch.overrides import TorchFunctionMode

pytest.importorskip('mmengine')
pytest.importorskip('mmdet')

from mmengine.config import Config

from icconv_mm.app.export.check import ComparedModel, check_file, images_to_check
from icconv_mm.app.export.comparison import LIMITS
from icconv_mm.app.runs.begin import begin
from icconv_mm.errors import InputError
from icconv_mm_runtime import Session

ADAPTER = SimpleNamespace(predictions=lambda sample: {'scores': sample})


@pytest.mark.parametrize('sizes', [[(8, 8), (8, 8)], [(8, 8), (8, 9)], [(8, 8), (9, 8), (9, 8)]])
@pytest.mark.parametrize('leak', [0.0, 1e-4])
def test_images_of_a_batch_do_not_change_each_other(sizes, leak, tmp_path):
    """A file that equals its model in each batch, and gives other scores for two images than for each alone."""

    def scores(count):
        return np.full((count, 2), 0.5 + leak * (count > 1), np.float32)

    paths = [tmp_path / f'{number}.png' for number in range(len(sizes))]
    for path, size in zip(paths, sizes):
        cv2.imwrite(str(path), random_image(*size))
    session = Session.of(described(), lambda arrays: {'scores': scores(len(arrays['image']))}, 'net')
    model = ComparedModel(None, {'': ADAPTER}, lambda batch: list(scores(len(batch))))
    if leak and len(set(sizes)) < len(sizes):
        with pytest.raises(InputError, match=r'scores by 0\.0001 \(limit 1e-05\) on .*\.png, in a batch and alone;'):
            check_file(model, session, list(map(Path, paths)), limits=LIMITS)
    else:
        assert check_file(model, session, paths, limits=LIMITS)[0] == {'images': len(paths), 'scores': 0.0}


class _LastFirst(TorchFunctionMode):
    """Torch as it may be: a sort puts the last of equal numbers first, unless it is told to keep their order."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.Tensor.sort and not (kwargs or {}).get('stable') and args[0].unique().numel() == 1:
            return result[0], result[1].flip(0)
        return result


@pytest.mark.parametrize('tied', [True, False])
def test_the_order_of_equal_scores_is_named_as_the_cause(tied, tmp_path):
    """A file that differs from models: one of which keeps the first of equal numbers, and one that has none."""

    def predict(batch):
        numbers = torch.zeros(9) if tied else torch.arange(9.0)
        first = int(numbers.sort(descending=True)[1][0])
        return [np.full(2, first, np.float32)]

    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), random_image(8, 8))
    session = Session.of(described(), lambda arrays: {'scores': np.full((1, 2), 0.5, np.float32)}, 'net')
    with pytest.raises(InputError, match='nothing is written') as error, _LastFirst():
        check_file(ComparedModel(None, {'': ADAPTER}, predict), session, [path], limits=LIMITS)
    assert ('Equal scores are the cause' in str(error.value)) == tied


DATASETS = {
    'coco': ('CocoDataset', {'images': [{'file_name': 'sub/a.png'}, {'file_name': 'gone.png'}]}, 'img'),
    'segmentation maps': ('ListedSegDataset', {'images': [{'file_name': 'sub/a.png', 'seg_map': 'a.png'}]}, 'img_path'),
    'classes': ('CustomDataset', 'sub/a.png 3\ngone.png 0\n', None),
}


@pytest.mark.parametrize('kind', DATASETS)
@pytest.mark.parametrize('is_absolute', [False, True])
def test_images_of_the_check_are_those_of_the_annotation_file(kind, is_absolute, tmp_path):
    name, content, prefix = DATASETS[kind]
    (tmp_path / 'images' / 'sub').mkdir(parents=True)
    (tmp_path / 'images' / 'b.png').touch()
    image = tmp_path / 'images' / 'sub' / 'a.png'
    image.touch()
    content = content if isinstance(content, str) else json.dumps(content)
    file = tmp_path / ('list.txt' if prefix is None else 'list.json')
    file.write_text(content.replace('sub/a.png', str(image)) if is_absolute else content)
    folder = '' if is_absolute else 'images/'
    dataset = dict(type=name, ann_file=str(file), data_prefix=folder if prefix is None else {prefix: folder})
    if not is_absolute:
        dataset.update(ann_file=file.name, data_root=str(tmp_path))
    run = begin(Config({'test_dataloader': {'dataset': {'type': 'RepeatDataset', 'dataset': dataset}}}))
    datasets = run.datasets['test']
    assert images_to_check(datasets, run.name) == [image]
    file.unlink()
    if not is_absolute:
        assert images_to_check(datasets, run.name) == [tmp_path / 'images' / 'b.png']
    else:
        with pytest.raises(InputError, match=r'images: .*name some for the check'):
            images_to_check(datasets, run.name)
