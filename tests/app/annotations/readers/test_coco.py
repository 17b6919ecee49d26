"""COCO files as their tools write them: categories of one name, skeletons that count from 0."""

import json

import pytest
from drawn_sets import draw

from icconv_mm.app.annotations.find import read_datasets
from icconv_mm.datasets.reading import DatasetError

pytest.importorskip('pycocotools')

NAMES = ['nose', 'neck', 'tail', 'tip']


@pytest.fixture
def read(tmp_path):
    """Reads a file of one image whose objects have the given category ids."""

    def reading(categories, ids=(1,)):
        draw(tmp_path, '0.jpg', size=(20, 10))
        annotations = [
            dict(id=i, image_id=1, category_id=number, bbox=[1, 1, 5, 5], keypoints=[2, 2, 2] * 4, num_keypoints=4)
            for i, number in enumerate(ids, 1)
        ]
        content = dict(images=[dict(id=1, file_name='0.jpg')], annotations=annotations, categories=categories)
        (tmp_path / 'a.json').write_text(json.dumps(content))
        (dataset,) = read_datasets(tmp_path)
        return dataset, [what for _, what in dataset.warnings]

    return reading


def categories(*names):
    return [dict(id=i, name=name, supercategory='plum' if i else 'none') for i, name in enumerate(names)]


@pytest.mark.parametrize('names', [('plum', 'plum'), ('plum', 'leaf', 'plum'), ('leaf', 'plum', 'plum')])
def test_a_project_called_like_its_class(read, names):
    """Of two categories of one name, the one without objects is no class."""
    number = len(names) - 1
    dataset, warnings = read(categories(*names), [number])
    assert sorted(dataset.classes) == sorted(set(names))
    (image,) = dataset
    assert [annotation.name for annotation in image.annotations] == ['plum']
    (warning,) = warnings
    assert warning.startswith("'plum' is the name of another category as well, and this one has no object")


def test_two_categories_of_one_name_that_both_have_objects(read):
    with pytest.raises(DatasetError, match="2 categories have the name 'plum'"):
        read(categories('plum', 'plum'), [0, 1])


def test_two_categories_of_one_name_without_objects_are_one_class(read):
    assert read(categories('plum', 'plum', 'leaf'), [2])[0].classes == ['plum', 'leaf']


@pytest.mark.parametrize(
    ('skeleton', 'links', 'warning'),
    [
        ([[0, 1], [1, 2], [2, 3]], [(0, 1), (1, 2), (2, 3)], 'its skeletons count keypoints from 0'),
        ([[1, 2], [2, 3], [3, 4]], [(0, 1), (1, 2), (2, 3)], None),
        ([[1, 2], [2, 3]], [(0, 1), (1, 2)], None),  # COCO's count, where nothing tells
        ([[0, 1], [3, 4]], [(2, 3)], 'joins [0, 1] of 4 keypoints, expected two numbers from 1'),
    ],
)
def test_what_a_skeleton_counts_from(read, skeleton, links, warning):
    dataset, warnings = read([dict(id=1, name='mouse', keypoints=NAMES, skeleton=skeleton)])
    assert dataset.skeleton == links
    assert [warning in text for text in warnings] == ([True] if warning else [])


def test_a_count_is_that_of_the_file(read):
    """A category that joins no first keypoint counts as the one beside it does."""
    mouse = dict(id=1, name='mouse', keypoints=NAMES, skeleton=[[0, 1]])
    rat = dict(id=2, name='rat', keypoints=NAMES[:3], skeleton=[[1, 2]])
    dataset, _ = read([mouse, rat], [1, 2])
    assert dataset.keypoints_of('rat')[1] == [(1, 2)]
