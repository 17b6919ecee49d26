"""Whose keypoints are: the same rule for every format that writes each point by itself or by name."""

import csv
import json

import labelled
import pytest
from drawn_sets import draw

from icconv_mm.app.annotations.find import read_datasets
from icconv_mm.app.annotations.points import predicted_keypoints

pytest.importorskip('pycocotools')

TWO = [('nose', 2, 2), ('tail', 4, 2), ('nose', 12, 9), ('tail', 14, 9)]
ONE = TWO[:2]
_LEFT_OUT, _LAST = 'which says whose they are: left out', "has 2 points 'nose': the last is taken"


def _of_label_studio(root, images):
    """Images of points and, with a name, a box that the points may have as parent."""
    tasks = []
    for number, (box, parent, points) in enumerate(images):
        draw(root, f'{number}.jpg', size=(20, 10))
        size = dict(original_width=20, original_height=10)
        value = dict(x=5, y=10, width=90, height=80, rectanglelabels=['mouse'])
        result = [dict(size, id=box, type='rectanglelabels', value=value)] if box else []
        for name, x, y in points:
            value = dict(x=5 * x, y=10 * y, width=1, keypointlabels=[name])
            result.append(dict(size, type='keypointlabels', parentID=parent, value=value))
        tasks.append(dict(data=dict(image=f'{number}.jpg'), annotations=[dict(was_cancelled=False, result=result)]))
    (root / 'tasks.json').write_text(json.dumps(tasks))


def _of_labelme(root, images):
    for number, (box, parent, points) in enumerate(images):
        draw(root, f'{number}.jpg', size=(20, 10))
        shapes = [dict(label=name, shape_type='point', points=[[x, y]], group_id=parent) for name, x, y in points]
        if box:
            shapes.append(dict(label='mouse', shape_type='rectangle', points=[[1, 1], [19, 9]], group_id=box))
        (root / f'{number}.json').write_text(json.dumps(dict(shapes=shapes, imagePath=f'{number}.jpg')))


@pytest.mark.parametrize('write', [_of_label_studio, _of_labelme])
@pytest.mark.parametrize(
    ('image', 'keypoints', 'warning'),
    [
        ((None, None, TWO), None, _LEFT_OUT),  # left out as a whole: it is not empty
        (('b', 'b', TWO), [[12, 9, 2, 14, 9, 2]], _LAST),
        (('b', None, TWO), [None], _LEFT_OUT),
        (('b', None, ONE), [[2, 2, 2, 4, 2, 2]], ''),
        (('b', 'b', ONE), [[2, 2, 2, 4, 2, 2]], ''),
        ((None, 'c', ONE), [[2, 2, 2, 4, 2, 2]], ''),
    ],
)
def test_points_that_each_stand_by_themselves(tmp_path, write, image, keypoints, warning):
    write(tmp_path, [image, (None, None, ONE)])
    (dataset,) = read_datasets(tmp_path)
    first = dataset.images[tmp_path / '0.jpg'].annotations
    assert (first and [annotation.keypoints for annotation in first]) == keypoints
    assert len(dataset.warnings) == (2 if warning == _LAST else bool(warning))
    assert all(warning in what or "'tail'" in what for _, what in dataset.warnings)


@pytest.mark.parametrize('write', [_of_label_studio, _of_labelme])
def test_points_of_the_only_name_are_objects(tmp_path, write):
    write(tmp_path, [(None, None, [('cell', 2, 2), ('cell', 9, 5)])])
    (dataset,) = read_datasets(tmp_path)
    assert [annotation.keypoints for _, annotation in dataset.annotations()] == [
        [2, 2, 2],
        [9, 5, 2],
    ] and not dataset.warnings


def test_a_label_twice_in_a_skeleton_of_cvat(tmp_path):
    draw(tmp_path, '0.jpg', size=(20, 10))
    points = ''.join(f'<points label="{name}" points="{x},{y}"/>' for name, x, y in TWO[:3])
    skeleton = f'<image name="0.jpg" width="20" height="10"><skeleton label="mouse">{points}</skeleton></image>'
    (tmp_path / 'a.xml').write_text(f'<annotations>{skeleton}</annotations>')
    (dataset,) = read_datasets(tmp_path)
    assert [annotation.keypoints for _, annotation in dataset.annotations()] == [[12, 9, 2, 4, 2, 2]]
    ((where, what),) = dataset.warnings
    assert what == _LAST and 'skeleton 1' in where


def test_a_body_part_twice_in_a_table_of_deeplabcut(tmp_path):
    (table,) = labelled.deeplabcut(tmp_path).rglob('*.csv')
    rows = list(csv.reader(table.read_text().splitlines()))
    rows[1][1:] = ['nose', 'nose', 'tail', 'tail', 'nose', 'nose']
    table.write_text('\n'.join(map(','.join, rows)) + '\n')
    with pytest.raises(Exception, match="two columns are called 'nose x'"):
        read_datasets(tmp_path)


@pytest.mark.parametrize(('scores', 'seen'), [((0.1, 0.09), [2, 0]), ((0.2, 0.9), [2, 2]), ((0.05, 0.0), None)])
def test_predicted_keypoints_that_are_shown_are_read(tmp_path, scores, seen):
    """By the rule of drawings and of ``icconv predict --to``, from a file of results as well."""
    points = [2, 2, scores[0], 4, 2, scores[1]]
    draw(tmp_path, '0.jpg', size=(20, 10))
    category = dict(id=1, name='mouse', keypoints=['nose', 'tail'])
    images = dict(images=[dict(id=1, file_name='0.jpg', width=20, height=10)], categories=[category])
    (tmp_path / 'images.json').write_text(json.dumps(images))
    good = dict(image_id=1, category_id=1, score=0.9, keypoints=[2, 2, 1, 4, 2, 1])
    (tmp_path / 'predictions.json').write_text(json.dumps([good, {**good, 'keypoints': points}]))
    (dataset,) = read_datasets(tmp_path / 'predictions.json')
    read = [annotation.keypoints[2::3] for annotation in dataset.images[tmp_path / '0.jpg'].annotations]
    assert read == [[2, 2]] + ([] if seen is None else [seen])
    keypoints = predicted_keypoints(points)
    assert keypoints is None if seen is None else keypoints[2::3] == seen


@pytest.mark.parametrize('keypoints', ['nose', [1, 'a', 2], {'a': 1}, 5])
def test_damaged_predicted_keypoints_are_named(tmp_path, keypoints):
    draw(tmp_path, '0.jpg', size=(20, 10))
    images = dict(images=[dict(id=1, file_name='0.jpg')], categories=[dict(id=1, name='mouse')])
    (tmp_path / 'images.json').write_text(json.dumps(images))
    good = dict(image_id=1, category_id=1, score=0.9, bbox=[1, 1, 5, 5])
    (tmp_path / 'predictions.json').write_text(json.dumps([good, {**good, 'keypoints': keypoints}]))
    (dataset,) = read_datasets(tmp_path / 'predictions.json')
    assert len(dataset.images[tmp_path / '0.jpg'].annotations) == 1
    assert "annotations[1]: 'keypoints' is" in str(dataset.warnings[0])
