"""Segmentation maps go to their own images, and values have their own names."""

import numpy as np
import pytest
from drawn_sets import draw, write
from PIL import Image

from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.dataset import SPLITS
from icconv_mm.app.annotations.find import read_datasets
from icconv_mm.errors import InputError


@pytest.mark.parametrize(
    ('pairs', 'others'),
    [
        ({'JPEGImages/0.jpg': 'SegmentationClass/0.png'}, ['SegmentationObject/0.png']),
        ({'JPEGImages/object.jpg': 'SegmentationClass/object.png'}, ['SegmentationObject/object.png']),
        ({f'{split}_images/0.png': f'{split}_masks/0.png' for split in ('train', 'val')}, []),
        ({f'{split}set/images/0.jpg': f'{split}set/labels/0.png' for split in ('train', 'test')}, []),
        ({'maps/train/0.jpg': 'maps/trainannot/0.png'}, ['people/images/0.jpg']),
        ({f'JPEGImages/{video}/0.jpg': f'Annotations/{video}/0.png' for video in ('bear', 'bus')}, []),
        ({'rgb/0.jpg': 'labels/0.png'}, ['depth/0.jpg']),
        ({'annotated/images/0.png': 'annotated/labels/0.png'}, []),
        ({'images/0.jpg': 'gt/0_labelTrainIds.png'}, ['gt/0_labelIds.png']),
        ({'JPEGImages/0.jpg': 'SegmentationClassAug/0.png'}, ['SegmentationClass/0.png', 'SegmentationObject/0.png']),
    ],
)
def test_maps_of_images(tmp_path, pairs, others):
    draw(tmp_path, *pairs, *pairs.values(), *others)
    (dataset,) = read_datasets(tmp_path)
    images = dataset.labelled('semantic')
    assert not dataset.warnings
    assert {p.path.relative_to(tmp_path).as_posix(): str(p.seg_map.relative_to(tmp_path)) for p in images} == pairs
    for image in images:
        folder = image.path.relative_to(tmp_path).parent.as_posix()
        assert image.split == next((split for split in SPLITS if split in folder), '')


@pytest.mark.parametrize(
    ('names', 'problem'),
    [
        (
            ['photos/0.jpg', 'masks_a/0.png', 'masks_b/0.png'],
            'has several segmentation maps, .*masks_a/0.png and .*masks_b/0',
        ),
        (['left/0.jpg', 'right/0.jpg', 'masks/0.png'], 'masks/0.png, which fits .*right/0.jpg as well'),
        (['labelled/0.png', 'masks/0.png'], 'is taken for the segmentation map of an image, and has one itself'),
    ],
)
def test_maps_that_could_be_of_others_are_left_out(tmp_path, names, problem):
    draw(tmp_path, *names)
    with pytest.raises(InputError, match=problem):
        convert_dataset(read_datasets(tmp_path)[0], 'semantic', tmp_path / 'out')
    draw(tmp_path, 'photos/1.jpg', 'masks/1.png')
    (dataset,) = read_datasets(tmp_path)
    converted = convert_dataset(dataset, 'semantic', tmp_path / 'out')
    assert {path.name for paths in converted.paths.values() for path in paths} == {'1.jpg'}
    assert dataset.warnings[-1][1].endswith(': left out')


@pytest.mark.parametrize(
    ('texts', 'names', 'colors'),
    [
        ({'labels.txt': '__ignore__\n_background_\nroad\n'}, {0: '_background_', 1: 'road'}, ()),
        ({'classes.txt': '1 road\n2 car\n'}, {1: 'road', 2: 'car'}, ()),
        ({'my_classes.txt': '0: road # grey\n7: car\n'}, {0: 'road', 7: 'car'}, ()),
        ({'classes.txt': 'road\n2 wheels\n'}, {0: 'road', 1: '2 wheels'}, ()),
        ({'filenames.txt': '0.png\n', 'file_names.txt': '0.png\n'}, {}, ()),
        ({'classes.csv': 'a,b\n1,2\n', 'labelmap.txt': 'road:0,0,0::\ncar:9,9,9::\n'}, {0: 'road', 1: 'car'}, (0, 1)),
        ({'label_colors.txt': '3 0 0 0 road\n5 9 9 9 car\n'}, {3: 'road', 5: 'car'}, (3, 5)),
    ],
)
def test_names_of_values(tmp_path, texts, names, colors):
    draw(tmp_path, 'images/0.jpg', 'labels/0.png')
    write(tmp_path, texts)
    (dataset,) = read_datasets(tmp_path)
    assert dataset.seg_map_classes == names and dataset.colors == dict(zip([(0, 0, 0), (9, 9, 9)], colors))


def test_colors_before_names(tmp_path):
    """CamVid's table, and the pixels of it."""
    draw(tmp_path, 'images/0.jpg')
    colors = np.zeros((12, 16, 3), np.uint8)
    colors[:, 4:] = (64, 128, 64)
    colors[6:, 4:] = (0, 128, 192)
    (tmp_path / 'labels').mkdir()
    Image.fromarray(colors).save(tmp_path / 'labels' / '0_L.png')
    write(tmp_path, {'label_colors.txt': '64 128 64\tAnimal\n0 0 0\tVoid\n0 128 192\tBicyclist\n'})
    converted = convert_dataset(read_datasets(tmp_path)[0], 'semantic', tmp_path / 'out')
    assert converted.counts == {'Animal': 0.5, 'Bicyclist': 0.5}
    assert "'Void', value 1, is ignored" in ' '.join(converted.notes)
