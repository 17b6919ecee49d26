"""A wrong annotation file is one message that names it."""

import json

import pytest

from icconv_mm.datasets import checks
from icconv_mm.datasets.checks import DatasetError


@pytest.fixture
def coco():
    return {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'width': 8, 'height': 8}],
        'annotations': [{'id': 1, 'image_id': 1, 'category_id': 2, 'bbox': [0, 0, 4, 4], 'area': 16, 'iscrowd': 0}],
        'categories': [{'id': 2, 'name': 'ball'}],
    }


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def first(content, **changes):
    """The annotations with another first one."""
    return {**content, 'annotations': [{**content['annotations'][0], **changes}, *content['annotations'][1:]]}


def test_coco_file(tmp_path, coco):
    checks.check_coco_file(write(tmp_path / 'a.json', coco))


@pytest.mark.parametrize(
    'damage, message',
    [
        (lambda c: [c], 'the top level is a list, expected an object'),
        (lambda c: {'shapes': [], 'version': '5'}, "no list 'images'; found 'shapes', 'version'"),
        (lambda c: {k: c[k] for k in ('images', 'annotations')}, "no list 'categories'"),
        (lambda c: {**c, 'annotations': [{'id': 1, 'image_id': 1}]}, r"annotations\[0\]: no field 'category_id'"),
        (lambda c: {**c, 'images': [{'id': 'a', 'file_name': 'a.jpg'}]}, r"images\[0\]: 'id' is 'a', expected int"),
        (lambda c: {**c, 'images': ['a.jpg']}, r'images\[0\]: expected an object, found str'),
        (
            lambda c: {**c, 'categories': [{'id': 3, 'name': 'x'}]},
            r'annotations\[0\]: category_id 2 is not in',
        ),
        (lambda c: {**c, 'images': []}, r'annotations\[0\]: image_id 1 is not in the file'),
        (
            lambda c: {**c, 'annotations': [{**c['annotations'][0], 'bbox': [1, 2]}]},
            r"annotations\[0\]: 'bbox' is \[1, 2\], expected \[x, y, width, height\]",
        ),
        (lambda c: first(c, bbox=[float('nan'), 0, 1, 1]), r"annotations\[0\]: 'bbox' is \[nan, 0, 1, 1\], expected"),
        (lambda c: first(c, bbox=[0, 0, float('inf'), 1]), r"annotations\[0\]: 'bbox' is"),
        (lambda c: first(c, bbox=[0, 0, -4, 4]), r"annotations\[0\]: 'bbox' is .* not negative"),
        (lambda c: first(c, bbox=['0', 0, 4, 4]), r"annotations\[0\]: 'bbox' is"),
        (lambda c: first(c, keypoints=[1, 2, float('nan')]), r"annotations\[0\]: 'keypoints' is"),
        (lambda c: first(c, iscrowd='no'), r"annotations\[0\]: 'iscrowd' is 'no', expected 0 or 1"),
        (lambda c: {**c, 'categories': c['categories'] * 2}, '2 categories have the id 2'),
        (
            lambda c: {**c, 'categories': [*c['categories'], {'id': 3, 'name': 'ball'}]},
            "2 categories have the name 'ball'",
        ),
        (lambda c: {**c, 'images': c['images'] * 3}, '3 images have the id 1'),
    ],
)
def test_not_coco(tmp_path, coco, damage, message):
    path = write(tmp_path / 'a.json', damage(coco))
    with pytest.raises(DatasetError, match=message) as error:
        checks.check_coco_file(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize('content', [b'', b'<annotation/>', b'{"images": [', b'\xff\xfe\x00', b'[' * 100_000])
def test_not_json(tmp_path, content):
    path = tmp_path / 'a.json'
    path.write_bytes(content)
    with pytest.raises(DatasetError, match='not a COCO annotation file: not JSON'):
        checks.check_coco_file(path)


@pytest.mark.parametrize(
    ('changes', 'name', 'message'),
    [
        ({}, 'cat', r"none of the classes \['cat'\] is a category of .* which has \['ball'\]"),
        ({'annotations': []}, 'ball', 'none of the 1 images in .* has a box of the classes .*filter_empty_gt=False'),
    ],
)
def test_why_a_dataset_is_empty(tmp_path, coco, changes, name, message):
    path = write(tmp_path / 'a.json', {**coco, **changes})
    with pytest.raises(DatasetError, match=message):
        checks.explain_coco(str(path), (name,), 'd', empty=True)


def test_not_empty_by_its_annotations(tmp_path, coco):
    checks.explain_coco(str(write(tmp_path / 'a.json', coco)), ('ball', 'cat'), 'd', empty=True)


@pytest.mark.parametrize('first', [True, False])
def test_categories_are_read_alone(tmp_path, first):
    entries = [{'id': 2, 'name': 'b'}, {'id': 1, 'name': 'a'}]
    content = {'images': [{'file_name': '"categories": ['}], 'annotations': []}
    content = {'categories': entries, **content} if first else {**content, 'categories': entries}
    assert checks.category_names(write(tmp_path / 'a.json', content)) == {2: 'b', 1: 'a'}
    assert list(checks.category_names(tmp_path / 'a.json')) == [2, 1]
    assert checks.category_names(write(tmp_path / 'a.json', {'x': '', 'categories': entries})) == {2: 'b', 1: 'a'}


def test_what_metrics_need(tmp_path, coco):
    del coco['images'][0]['width']
    with pytest.raises(DatasetError, match=r"images\[0\]: 'width' is None, expected pixels"):
        checks.explain_coco(str(write(tmp_path / 'a.json', coco)), ('ball',), 'd', empty=False)


@pytest.mark.parametrize('area', [-1, float('nan'), float('inf'), '16', None])
def test_areas_that_cannot_be(tmp_path, coco, area):
    """They are refused where a config names the file: mmdet learns no box of area 0 or less, COCO's metrics no NaN."""
    with pytest.raises(DatasetError, match=r"a.json: annotations\[0\]: ('area' is|no field 'area')"):
        checks.check_measures(first(coco, area=area), tmp_path / 'a.json')


def test_areas_of_zero_are_reported(tmp_path, coco, monkeypatch):
    said = []
    monkeypatch.setattr(checks, 'print_log', lambda text, **_: said.append(text))
    for changes, count in ((dict(area=0), 1), (dict(area=0, iscrowd=1), 0), (dict(area=0, bbox=[0, 0, 0, 4]), 0)):
        said.clear()
        checks.check_measures(first(coco, **changes), tmp_path / 'a.json')
        assert len(said) == count
    checks.check_measures(first(coco, area=0), tmp_path / 'a.json')
    assert '1 of 1 annotations have "area" 0 and a box that is not empty, the first is annotations[0]' in said[0]
