"""Sets that other tools wrote of annotations of ours (``tools/dev/exporters``) mean what ``truth.json`` says."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporters import table
from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.door import read_dataset
from icconv_mm.app.annotations.segmentations import mask_of
from icconv_mm.datasets.reading import DatasetError

pytest.importorskip('pycocotools')

EXPORTERS = Path(__file__).parents[3] / 'data/exporters'
SETS = [path.parent for path in sorted(EXPORTERS.glob('*/*/truth.json'))]


def _decoded(counts, size):
    values = np.repeat(np.arange(len(counts), dtype=np.uint8) % 2, counts)
    return values.reshape(size).T  # RLE goes by columns


def _iou(one, other):
    return (one & other).sum() / max((one | other).sum(), 1)


def _distance(annotation, entry):
    """Returns the distance of an object from one of the truth, whose class and kinds it must have."""
    kinds = (annotation.name, bool(annotation.segmentation), bool(annotation.keypoints), annotation.crowd)
    if kinds != (entry['class'], 'mask' in entry, 'keypoints' in entry, entry.get('crowd', False)):
        return float('inf')
    if 'box' in entry:
        return float(np.abs(np.subtract(annotation.box, entry['box'])).max())
    points, expected = np.reshape(annotation.keypoints, (-1, 3)), np.reshape(entry['keypoints'], (-1, 3))
    seen, (x, y, w, h) = expected[expected[:, 2] > 0], annotation.box
    is_around = (seen[:, :2] >= (x, y)).all() and (seen[:, :2] <= (x + w, y + h)).all()
    return float(np.abs(points - expected).max()) if is_around else float('inf')


def _compare(image, entries, tolerance):
    there = [
        (annotation.name, annotation.box, bool(annotation.segmentation), annotation.keypoints, annotation.crowd)
        for annotation in image.annotations
    ]
    assert len(there) == len(entries), (image.path.name, there)
    free = list(image.annotations)
    for entry in entries:
        annotation = min(free, key=lambda candidate: _distance(candidate, entry))
        assert _distance(annotation, entry) <= tolerance['box'] + 1e-6, (image.path.name, entry, there)
        free = [candidate for candidate in free if candidate is not annotation]
        if 'mask' in entry:
            iou = _iou(mask_of(annotation.segmentation, image.size), _decoded(entry['mask'], image.size))
            assert iou >= tolerance['iou'], (image.path.name, entry['class'], iou)
        if 'keypoints' in entry:
            points, expected = np.reshape(annotation.keypoints, (-1, 3)), np.reshape(entry['keypoints'], (-1, 3))
            assert points[:, 2].tolist() == expected[:, 2].tolist(), (points, expected)
            assert np.abs(points - expected)[expected[:, 2] > 0].max() <= tolerance['point'] + 1e-6


def _compare_seg_maps(dataset, truth, folder):
    converted = convert_dataset(dataset, 'semantic', folder)
    assert converted.classes == truth['classes']
    for image in dataset:
        labels = np.asarray(Image.open(image.seg_map))
        for name, counts in truth['images'][image.path.name]['seg_map'].items():
            mask = _decoded(counts, image.size)
            iou = _iou(labels == converted.classes.index(name), mask.astype(bool)) if mask.any() else 1
            assert iou >= truth['tolerance']['iou'], (image.path.name, name, iou)


@pytest.mark.parametrize('folder', SETS, ids=lambda folder: f'{folder.parent.name}-{folder.name}')
def test_a_set_means_what_its_tool_meant(folder, tmp_path):
    truth = json.loads((folder / 'truth.json').read_text())
    shutil.copytree(folder / 'data', tmp_path / 'data')
    for name in truth['needs']:
        pytest.importorskip(name)
    if truth['refused']:
        with pytest.raises(DatasetError, match=re.escape(truth['refused'])):
            read_dataset(tmp_path / 'data')
        return
    dataset = read_dataset(tmp_path / 'data' / truth['read'], **truth['options'])
    said = [*dataset.notes, *(f'{file}: {what}' for file, what in dataset.warnings)]
    by_path = any('/' in name for name in truth['images'])  # two splits with the same names
    images = {
        image.path.relative_to(tmp_path.resolve() / 'data').as_posix() if by_path else image.path.name: image
        for image in dataset
    }
    assert sorted(images) == sorted(truth['images']), (said, dataset.missing)
    for name, entry in truth['images'].items():
        assert images[name].split == entry.get('split', ''), name
    for word in truth['decided']:
        assert any(word in line for line in said), (word, said)
    assert not dataset.missing
    if any('seg_map' in entry for entry in truth['images'].values()):
        _compare_seg_maps(dataset, truth, tmp_path / 'out')
        return
    assert dataset.classes == truth['classes'] and dataset.keypoints == truth['keypoints']
    assert not truth['flips'] or dataset.flip_indices == truth['flips']
    for name, entry in truth['images'].items():
        _compare(images[name], entry['objects'], truth['tolerance'])


def test_the_table_of_the_page_is_that_of_the_sets():
    text = table.PAGE.read_text()
    assert table.page_with_table(text) == text, 'run python tools/dev/exporters/table.py'


def test_the_sets_are_many_and_small():
    files = [path for path in EXPORTERS.rglob('*') if path.is_file()]
    assert len({folder.parent for folder in SETS}) >= 10 and len(SETS) >= 30
    assert sum(path.stat().st_size for path in files) < 1.5e6 and max(path.stat().st_size for path in files) < 60e3
