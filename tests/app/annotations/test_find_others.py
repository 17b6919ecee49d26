"""What labelling tools write that is no label, or looks like another one: YOLO, CVAT, LabelMe, DeepLabCut, MPII."""

import csv
import json

import labelled
import pytest
from drawn_sets import draw, labelme, said, splits, write

from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.find import read_datasets

pytest.importorskip('pycocotools')


@pytest.mark.parametrize(
    ('kind', 'line', 'problem'),
    [
        ('keypoints', '2' + ' 0' * 13, 'cat: the box has 0 x 0 pixels: left out'),
        ('segmentations', '2 0.1 0.1 nan 0.5 0.5 0.9', 'are not finite: left out'),
        ('segmentations', '2 0.1 0.1 0.5 0.5 1e9 0.9', 'a polygon goes from'),
        ('boxes', 'inf 0.5 0.5 0.1 0.1', 'are not finite: left out'),
        ('boxes', '2.5 0.5 0.5 0.1 0.1', 'class 2.5 has no name'),
    ],
)
def test_lines_of_yolo_that_are_no_labels(tmp_path, kind, line, problem):
    root = labelled.yolo(tmp_path / 'data', kind)
    path = root / 'labels' / 'train' / 'p0.txt'
    path.write_text(f'{path.read_text()}{line}\n')
    (dataset,) = read_datasets(root)
    convert_dataset(dataset, dataset.tasks()[-1], tmp_path / 'out')
    ((file, what),) = dataset.warnings
    assert file == f'{path}: line 3' and problem in what


_BOX = '<box label="x" xtl="2" ytl="4" xbr="12" ybr="8"/>'


def _cvat(root, images):
    """Images, each with attributes and shapes."""
    draw(root, *images)
    text = ''.join(f'<image name="{name}" {attributes}>{shape}</image>' for name, (attributes, shape) in images.items())
    write(root, {'a.xml': f'<annotations>{text}</annotations>'})


def test_rotated_boxes_of_cvat(tmp_path):
    _cvat(tmp_path, {f'{turn}.jpg': ('', _BOX.replace('/>', f' rotation="{turn}"/>')) for turn in (0, 90, 45)})
    (dataset,) = read_datasets(tmp_path)
    boxes = {image.path.stem: image.annotations[0].box for image in dataset.images.values()}
    half = 7 / 2**0.5
    assert boxes['0'] == [2, 4, 10, 4] and boxes['90'] == pytest.approx([5, 1, 4, 10])
    assert boxes['45'] == pytest.approx([7 - half, 6 - half, 2 * half, 2 * half])


@pytest.mark.parametrize(
    ('attributes', 'shape', 'problem'),
    [
        ('', '<skeleton label="m"><points label="1" outside="1" points="1,1"/></skeleton>', 'all points are outside'),
        ('', '<polygon label="x" points="1,1;5,nan;5,5"/>', 'a polygon goes from'),
        ('width="32" height="24"', _BOX, 'is 16 x 12, but a.xml says 32 x 24'),
    ],
)
def test_shapes_of_cvat_that_are_no_labels(tmp_path, attributes, shape, problem):
    _cvat(tmp_path, {'0.jpg': (attributes, shape), '1.jpg': ('width="16" height="12"', _BOX)})
    (dataset,) = read_datasets(tmp_path)
    convert_dataset(dataset, 'detection', tmp_path / 'out')
    ((_, what),) = dataset.warnings
    assert problem in what and 'left out' in what


def test_names_of_images_split_nothing_in_cvat(tmp_path):
    _cvat(tmp_path, dict.fromkeys(('train_1.jpg', 'test-track.jpg', 'val/0.jpg'), ('', _BOX)))
    assert splits(tmp_path, 'detection') == {'train_1.jpg': 'train', 'test-track.jpg': 'train', 'val/0.jpg': 'val'}


_MOUSE = ('mouse', 'rectangle', [[1, 1], [9, 9]])
_NOSE, _TAIL = ('nose', 'point', [[2, 2]]), ('tail', 'point', [[8, 8]])


@pytest.mark.parametrize(
    ('shapes', 'keypoints', 'warnings'),
    [
        ([_MOUSE, _NOSE, _TAIL], [('mouse', [2, 2, 2, 8, 8, 2])], 0),
        ([_NOSE, _TAIL], [('object', [2, 2, 2, 8, 8, 2])], 0),
        ([(*_NOSE, 1), (*_TAIL, 1), (*_NOSE, 2)], [('object', [2, 2, 2, 8, 8, 2]), ('object', [2, 2, 2, 0, 0, 0])], 0),
        ([_MOUSE, _MOUSE, _NOSE, _TAIL], [('mouse', None)] * 2, 1),
        ([_NOSE, _NOSE, _TAIL], [('object', [2, 2, 2, 8, 8, 2])], 1),  # of the other image: this one is left out
    ],
)
def test_points_of_labelme(tmp_path, shapes, keypoints, warnings):
    """Those without a group are of the only object on the image."""
    labelme(tmp_path / '0.json', *shapes)
    labelme(tmp_path / '1.json', (*_NOSE, 1), (*_TAIL, 1))
    (dataset,) = read_datasets(tmp_path)
    annotations = next(image.annotations for image in dataset if image.annotations is not None)
    assert [(annotation.name, annotation.keypoints) for annotation in annotations] == keypoints
    what = f'{len(shapes) - shapes.count(_MOUSE)} points without a group_id, which says whose they are: left out'
    assert [what for _, what in dataset.warnings] == warnings * [what]


def test_points_of_one_name_are_objects_in_labelme(tmp_path):
    labelme(tmp_path / '0.json', _NOSE, _NOSE)
    (dataset,) = read_datasets(tmp_path)
    assert [annotation.keypoints for _, annotation in dataset.annotations()] == [[2, 2, 2]] * 2


def test_files_of_labelme_that_mean_one_image(tmp_path):
    labelme(tmp_path / 'b' / '0.json', _MOUSE)
    labelme(tmp_path / 'a' / '0.json', _NOSE)
    (tmp_path / 'a' / '0.jpg').unlink()
    (dataset,) = read_datasets(tmp_path)
    assert [annotation.name for _, annotation in dataset.annotations()] == ['mouse']
    assert said(dataset).startswith(f'{tmp_path / "a" / "0.json"}: other annotations of ')


def test_frames_of_deeplabcut_without_labels(tmp_path):
    root = labelled.deeplabcut(tmp_path)
    path = root / 'labeled-data' / 'video' / 'CollectedData_me.csv'
    rows = list(csv.reader(path.read_text().splitlines()))
    rows[3][1:] = [''] * 6
    path.write_text('\n'.join(map(','.join, rows)) + '\n')
    (dataset,) = read_datasets(root)
    assert {image.path.stem for image in dataset.images.values()} == {'p1', 'p2'}
    assert said(dataset) == f'{path}: line 4: no body part is annotated: left out'


def test_people_of_mpii_without_joints(tmp_path):
    draw(tmp_path, '0.jpg')
    people = [dict(image='0.jpg', joints=[[5, 5]] * 16, joints_vis=[seen] * 16) for seen in (1, 0)]
    write(tmp_path, {'people.json': json.dumps(people)})
    (dataset,) = read_datasets(tmp_path)
    convert_dataset(dataset, 'pose', tmp_path / 'out')
    assert len([*dataset.annotations()]) == 1 and said(dataset).endswith(
        'people.json: [1]: no joint is visible: left out'
    )
