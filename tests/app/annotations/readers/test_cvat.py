"""CVAT: the objects that its shapes, groups, skeletons and tracks mean."""

import json

import numpy as np
import pytest
from drawn_sets import coco, draw, edited, entries_of, only, said, splits, write

from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.find import read_datasets
from icconv_mm.app.annotations.report import draw_page
from icconv_mm.app.annotations.segmentations import mask_of, measure
from icconv_mm.errors import ArgumentError, InputError

pytest.importorskip('pycocotools')


def _labels(**points):
    """Labels of skeletons with their points, joined by lines one after another; None for a label of other shapes."""
    text = ''
    for label, names in points.items():
        kind = 'any' if names is None else 'skeleton'
        circles = [
            f'<circle data-type="element node" data-element-id="{i}" data-node-id="{i}" data-label-name="{name}"/>'
            for i, name in enumerate(names or (), 1)
        ]
        lines = [
            f'<line data-type="edge" data-node-from="{i}" data-node-to="{i + 1}"/>' for i in range(1, len(names or ()))
        ]
        drawing = ''.join(lines + circles).replace('<', '&lt;').replace('>', '&gt;')
        text += f'<label><name>{label}</name><type>{kind}</type><svg>{drawing}</svg></label>'
        text += ''.join(
            f'<label><name>{name}</name><type>points</type><parent>{label}</parent></label>' for name in names or ()
        )
    return f'<labels>{text}</labels>'


def _skeleton(label, *points, more=''):
    """Points are a name, x, y and optionally attributes."""
    inner = ''.join(
        f'<points label="{name}" points="{x},{y}" {"".join(attributes)}/>' for name, x, y, *attributes in points
    )
    return f'<skeleton label="{label}" {more}>{inner}</skeleton>'


def _cvat(root, images, labels='', path='annotations.xml', folder='images'):
    """Images and their shapes."""
    draw(root, *(f'{folder}/{name}' for name in images))
    text = ''.join(f'<image name="{name}" width="16" height="12">{shapes}</image>' for name, shapes in images.items())
    write(root, {path: f'<annotations><meta><task>{labels}</task></meta>{text}</annotations>'})


def _pose(converted):
    (category,) = json.loads(converted.files['train'].read_text())['categories']
    return category, [entry['keypoints'] for entry in entries_of(converted)]


# --- skeletons ---


def test_keypoints_have_the_names_and_order_of_the_labels(tmp_path):
    """The first skeleton lacks some and is in another order: absent and outside points are zeros, none vanishes."""
    one = _skeleton('bird', ('tail', 9, 9), ('beak', 2, 3, 'occluded="1"'))
    two = _skeleton('bird', ('beak', 4, 4), ('wing', 5, 5), ('tail', 6, 6, 'outside="1"'), ('crest', 7, 7))
    _cvat(tmp_path, {'0.jpg': one, '1.jpg': two}, _labels(bird=['beak', 'wing', 'tail']))
    dataset = only(tmp_path)
    assert dataset.keypoints == ['beak', 'wing', 'tail', 'crest'] and dataset.skeleton == [(0, 1), (1, 2)]
    assert [annotation.keypoints for _, annotation in dataset.annotations()] == [
        [2, 3, 1, 0, 0, 0, 9, 9, 2, 0, 0, 0],
        [4, 4, 2, 5, 5, 2, 0, 0, 0, 7, 7, 2],
    ]
    category, _ = _pose(convert_dataset(dataset, 'pose', tmp_path / 'out'))
    assert category['keypoints'] == dataset.keypoints and category['skeleton'] == [[1, 2], [2, 3]]


def test_keypoints_that_no_label_names(tmp_path):
    skeletons = [_skeleton('m', *((str(k), k, k) for k in numbers)) for numbers in ((10, 2), (1, 2, 9))]
    _cvat(tmp_path, {f'{i}.jpg': skeleton for i, skeleton in enumerate(skeletons)})
    dataset = only(tmp_path)
    assert dataset.keypoints == ['1', '2', '9', '10'] and dataset.classes == ['m']
    assert [annotation.keypoints[2::3] for _, annotation in dataset.annotations()] == [[0, 2, 0, 2], [2, 2, 2, 0]]


def _two_kinds(root):
    person = _skeleton('person', *((name, 2, 2) for name in 'abc'))
    dog = _skeleton('dog', *((name, 9, 9) for name in 'abcde'))
    _cvat(root, {f'{i}.jpg': person + dog for i in range(4)}, _labels(person=list('abc'), dog=list('abcde')))
    return root


def _two_kinds_of_coco(root):
    coco(root / 'a.json', [f'{i}.jpg' for i in range(4)])
    draw(root, *(f'{i}.jpg' for i in range(4)))
    with edited(root / 'a.json') as content:
        content['categories'] = [
            dict(id=i, name=name, keypoints=list(points), skeleton=[[1, len(points)]])
            for i, (name, points) in enumerate((('person', 'abc'), ('dog', 'abcde')))
        ]
        content['annotations'] = [
            dict(id=2 * i + k, image_id=i, category_id=k, bbox=[1, 1, 9, 9], keypoints=[5, 5, 2] * count)
            for i in range(4)
            for k, count in enumerate((3, 5))
        ]
    return root


@pytest.mark.parametrize('make', [_two_kinds, _two_kinds_of_coco])
def test_skeletons_of_two_kinds(tmp_path, make):
    """A pose network learns one: refused with the names and keypoints of both, unless the user picks one."""
    root = make(tmp_path / 'data')
    with pytest.raises(ArgumentError, match=r'classes: .*: person has a, b, c; dog has a, b, c, d, e\. Name'):
        convert_dataset(only(root), 'pose', tmp_path / 'out')
    for name, points in (('dog', 'abcde'), ('person', 'abc')):
        converted = convert_dataset(dataset := only(root), 'pose', tmp_path / name, classes=[name])
        category, keypoints = _pose(converted)
        assert converted.classes == [name] and category['keypoints'] == list(points) == converted.keypoints
        assert len(keypoints) == 4 and {len(values) for values in keypoints} == {3 * len(points)}
        assert not dataset.warnings and draw_page(dataset, [converted], tmp_path / name / 'page.jpg').is_file()
        assert not dataset.warnings  # each object is drawn with the lines of its own skeleton
    converted = convert_dataset(only(root), 'detection', tmp_path / 'boxes')
    assert converted.counts == {'person': 4, 'dog': 4}


def test_skeletons_of_one_kind_by_two_names(tmp_path):
    cat, dog = (_skeleton(name, *((point, 4, 4) for point in 'ab')) for name in ('cat', 'dog'))
    _cvat(tmp_path, {'0.jpg': cat, '1.jpg': dog}, _labels(cat=['a', 'b'], dog=['a', 'b'], fox=['a']))
    converted = convert_dataset(only(tmp_path), 'pose', tmp_path / 'out')
    assert converted.keypoints == ['a', 'b'] and converted.classes == ['object'] and converted.counts == {'object': 2}


def test_one_class_with_two_lists_in_files_of_coco(tmp_path):
    for split in ('train', 'val'):
        _two_kinds_of_coco(tmp_path)
        content = json.loads((tmp_path / 'a.json').read_text())
        content['categories'][0]['keypoints'] = ['a', 'b', split]
        write(tmp_path, {f'{split}.json': json.dumps(content)})
    (tmp_path / 'a.json').unlink()
    with pytest.raises(InputError, match=r"val\.json: category 'person' has other keypoints than in the files before"):
        read_datasets(tmp_path)


# --- groups ---

_LEFT, _RIGHT = '1,1;5,1;5,5;1,5', '9,1;13,1;13,5;9,5'
_POLYGON = '<polygon label="{}" points="{}" group_id="{}"/>'.format
_BOX = '<box label="{}" xtl="{}" ytl="1" xbr="{}" ybr="5" group_id="{}"/>'.format
_MASK = '<mask label="{}" rle="0, 16" left="9" top="1" width="4" height="4" group_id="{}"/>'.format


def _objects(root):
    dataset = only(root)
    objects = []
    for image, annotation in dataset.annotations():
        measure(annotation, image.size)
        area = None if annotation.segmentation is None else int(mask_of(annotation.segmentation, image.size).sum())
        objects.append((annotation.name, annotation.box, area))
    return dataset, objects


@pytest.mark.parametrize(
    ('shapes', 'expected'),
    [
        (_POLYGON('x', _LEFT, 1) + _POLYGON('x', _RIGHT, 1), [('x', [1, 1, 12, 4], 32)]),
        (_POLYGON('x', _LEFT, 1) + _MASK('x', 1), [('x', [1, 1, 12, 4], 32)]),
        (_BOX('x', 1, 5, 1) + _BOX('x', 9, 13, 1), [('x', [1, 1, 12, 4], None)]),
        (_BOX('x', 0, 5, 1) + _POLYGON('x', _RIGHT, 1), [('x', [0, 1, 13, 4], 16)]),
        (_POLYGON('x', _LEFT, 1) + _POLYGON('y', _RIGHT, 1), [('x', [1, 1, 4, 4], 16), ('y', [9, 1, 4, 4], 16)]),
        (_POLYGON('x', _LEFT, 1) + _POLYGON('x', _RIGHT, 2), [('x', [1, 1, 4, 4], 16), ('x', [9, 1, 4, 4], 16)]),
        (_POLYGON('x', _LEFT, 0) + _POLYGON('x', _RIGHT, 0), [('x', [1, 1, 4, 4], 16), ('x', [9, 1, 4, 4], 16)]),
        (_POLYGON('x', _LEFT, '') + _POLYGON('x', _RIGHT, ''), [('x', [1, 1, 4, 4], 16), ('x', [9, 1, 4, 4], 16)]),
    ],
)
def test_shapes_of_one_label_and_group_are_one_object(tmp_path, shapes, expected):
    _cvat(tmp_path, {'0.jpg': shapes, '1.jpg': shapes})
    dataset, objects = _objects(tmp_path)
    assert objects == 2 * expected and not dataset.warnings
    notes = [] if len(expected) == 2 else ['2 objects are made of several shapes with one label and one group_id']
    assert dataset.notes == notes


def test_a_box_and_the_skeleton_of_one_group(tmp_path):
    """The box is that of the object; several skeletons in a group are several objects."""
    box, points = _BOX('x', 1, 14, 7), _skeleton('x', ('a', 5, 3), more='group_id="7"')
    gone = _skeleton('x', ('a', 5, 3, 'outside="1"'), more='group_id="7"')
    _cvat(tmp_path, {'0.jpg': box + points, '1.jpg': points + points, '2.jpg': gone + box})
    dataset = only(tmp_path)
    one, *others, last = [annotation for _, annotation in dataset.annotations()]
    assert one.box == [1, 1, 13, 4] and one.keypoints == [5, 3, 2] and not dataset.warnings
    assert [annotation.keypoints for annotation in others] == [[5, 3, 2]] * 2
    assert last.box == [1, 1, 13, 4] and last.keypoints is None


def test_shapes_of_images_that_are_outside(tmp_path):
    """datumaro writes the frames of a track so, in which the object is not."""
    outside = _BOX('x', 1, 5, 0).replace('/>', ' outside="1"/>')
    _cvat(tmp_path, {'0.jpg': _BOX('x', 1, 5, 0), '1.jpg': outside})
    dataset = only(tmp_path)
    assert [len(image.annotations) for image in dataset.images.values()] == [1, 0] and not dataset.warnings


# --- rotated boxes and ellipses ---


def test_rotated_boxes_are_polygons(tmp_path):
    """For boxes those around them; of a label with rotated boxes, straight ones are polygons as well."""
    rotated = '<box label="ship" xtl="4" ytl="4" xbr="12" ybr="8" rotation="90.00"/>'
    straight = '<box label="ship" xtl="1" ytl="2" xbr="6" ybr="4"/><box label="pier" xtl="1" ytl="2" xbr="6" ybr="4"/>'
    _cvat(tmp_path, {'0.jpg': rotated, '1.jpg': straight})
    dataset, objects = _objects(tmp_path)
    assert [(name, pytest.approx(box), area) for name, box, area in objects] == [
        ('ship', [6, 2, 4, 8], 32),
        ('ship', [1, 2, 5, 2], 10),
        ('pier', [1, 2, 5, 2], None),
    ]
    (note,) = dataset.notes
    boxes = '2 boxes of ship, of which some are rotated'
    assert note == f'{boxes}, are polygons for masks, and the boxes around these for detection'
    assert convert_dataset(dataset, 'detection', tmp_path / 'out').counts == {'ship': 2, 'pier': 1}
    assert convert_dataset(dataset, 'instance', tmp_path / 'out').counts == {'ship': 2, 'pier': 0}


def test_rotated_boxes_turn_clockwise(tmp_path):
    _cvat(tmp_path, {'0.jpg': '<box label="x" xtl="4" ytl="4" xbr="12" ybr="8" rotation="30"/>'})
    ((_, annotation),) = only(tmp_path).annotations()
    (polygon,) = annotation.segmentation
    left_top, right_top = np.array(polygon).reshape(4, 2)[:2]
    assert np.degrees(np.arctan2(*(right_top - left_top)[::-1])) == pytest.approx(30)  # y points down


def test_ellipses_are_polygons(tmp_path):
    upright = '<ellipse label="x" cx="8" cy="6" rx="3" ry="5" rotation="{}"/>'.format
    _cvat(tmp_path, {'0.jpg': upright(0), '1.jpg': upright('90.00')})
    _, objects = _objects(tmp_path)
    assert [box for _, box, _ in objects] == [[5, 1, 6, 10], [3, 3, 10, 6]]
    assert all(abs(area - np.pi * 15) < 3 for _, _, area in objects)


# --- video ---


def _video(root, tracks, frames, meta='', folder='images', path='annotations.xml', suffix='.PNG'):
    """Frames, and tracks with their shapes."""
    draw(root, *(f'{folder}/frame_{frame:06d}{suffix}' for frame in frames))
    text = ''.join(f'<track id="{i}" {attributes}>{shapes}</track>' for i, (attributes, shapes) in enumerate(tracks))
    write(root, {path: f'<annotations><meta>{meta}</meta>{text}</annotations>'})


def _shapes(*frames, tag='box', attributes='xtl="2" ytl="2" xbr="8" ybr="6"'):
    """Shapes of a track; a negative number is a frame where it is outside."""
    return ''.join(
        f'<{tag} frame="{abs(frame)}" keyframe="{int(i == 0)}" outside="{int(frame < 0)}" occluded="0" {attributes}/>'
        for i, frame in enumerate(frames)
    )


def _by_frame(dataset):
    return {
        int(path.stem[6:]): [annotation.name for annotation in image.annotations]
        for path, image in dataset.images.items()
    }


def test_tracks_of_a_video(tmp_path):
    """Each frame has the shapes that are not outside; frames without one are annotated as empty."""
    car, cell = 'label="car"', 'label="cell" group_id="3"'
    points = [
        f'<points label="{n}" points="{x},{x}" outside="{o}" keyframe="1"/>' for n, x, o in (('a', 3, 0), ('b', 4, 1))
    ]
    gone = points[1].replace('"b"', '"a"') + points[1]
    skeletons = f'<skeleton frame="0" keyframe="1">{"".join(points)}</skeleton>'
    skeletons += f'<skeleton frame="1" keyframe="1">{gone}</skeleton>'
    mask = _shapes(2, tag='mask', attributes='rle="0, 16" left="9" top="1" width="4" height="4"')
    tracks = [
        (car, _shapes(0, 1, 2, -3)),
        (cell, _shapes(1, 2, tag='polygon', attributes=f'points="{_LEFT}"')),
        (cell, mask),
        ('label="m"', skeletons),
    ]
    meta = f'<task><mode>interpolation</mode>{_labels(car=None, m=["a", "b"])}</task>'
    _video(tmp_path, tracks, range(5), meta)
    dataset = only(tmp_path)
    assert dataset.format == 'CVAT for video' and not dataset.warnings and not dataset.missing
    assert _by_frame(dataset) == {0: ['car', 'm'], 1: ['car', 'cell'], 2: ['car', 'cell'], 3: [], 4: []}
    annotations = {(image.path.stem[-1], annotation.name): annotation for image, annotation in dataset.annotations()}
    assert annotations['0', 'm'].keypoints == [3, 3, 2, 0, 0, 0] and annotations['0', 'car'].box == [2, 2, 6, 4]
    assert int(mask_of(annotations['2', 'cell'].segmentation, (16, 12)).sum()) == 32
    assert sum(convert_dataset(dataset, 'detection', tmp_path / 'out').splits.values()) == 5


@pytest.mark.parametrize(
    ('meta', 'expected'),
    [
        ('', [0, 1, 2, 3, 4, 5, 6]),
        ('<task><start_frame>1</start_frame><stop_frame>5</stop_frame></task>', [1, 2, 3, 4, 5]),
        (
            '<task><start_frame>1</start_frame><stop_frame>5</stop_frame><frame_filter>step=2</frame_filter></task>',
            [1, 3, 5],
        ),
        ('<job><start_frame>0</start_frame><stop_frame>1</stop_frame></job>', [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_frames_of_the_task(tmp_path, meta, expected):
    """Images of other frames are not annotated; a step leaves no gap in a track."""
    _video(tmp_path, [('label="x"', _shapes(1, 3, 5) if 'step' in meta else _shapes(*range(1, 6)))], range(7), meta)
    dataset = only(tmp_path)
    assert sorted(_by_frame(dataset)) == expected and not dataset.warnings


def test_frames_that_are_not_there(tmp_path):
    _video(tmp_path, [('label="x"', _shapes(0, 1, 2))], [0, 2], folder='.')
    dataset = only(tmp_path)
    assert _by_frame(dataset) == {0: ['x'], 2: ['x']}
    assert dataset.missing == [f'{tmp_path / "annotations.xml"}: frame_000001']
    (tmp_path / 'frame_000000.PNG').rename(tmp_path / 'a.PNG')
    (tmp_path / 'frame_000002.PNG').unlink()
    with pytest.raises(InputError, match='is of a video, and no image is called frame_000000'):
        read_datasets(tmp_path)
    draw(tmp_path, 'a/frame_000000.jpg', 'b/frame_000000.jpg')
    with pytest.raises(InputError, match=r'is of a video, and 2 folders have frames: .*a, .*b'):
        read_datasets(tmp_path)


def test_frames_between_keyframes_that_are_not_written(tmp_path):
    """CVAT writes them; elsewhere the object is unknown there, and the frames are left out."""
    _video(tmp_path, [('label="x"', _shapes(0, 4)), ('label="y"', _shapes(*range(30)))], range(30))
    dataset = only(tmp_path)
    assert sorted(_by_frame(dataset)) == [0, *range(4, 30)]
    assert said(dataset) == (
        f'{tmp_path / "annotations.xml"}: track 0: 3 images between its keyframes have no shape of it, '
        'the first is 1: left out'
    )
    assert len(dataset.lost) == 3
    _video(tmp_path, [('label="x"', _shapes(0, -1, 4))], range(30))
    assert len(_by_frame(only(tmp_path))) == 30


def test_tracks_of_a_project(tmp_path):
    """A subset is a split with images of its own; frames of two tasks in one subset cannot be told apart."""
    for subset in ('Train', 'Validation'):
        draw(tmp_path, f'images/{subset}/frame_000000.png')
    tracks = [
        (f'label="{name}" task_id="{i}" subset="{name}"', _shapes(0)) for i, name in enumerate(('Train', 'Validation'))
    ]
    _video(tmp_path, tracks, [])
    assert splits(tmp_path, 'detection') == {
        'images/Train/frame_000000.png': 'train',
        'images/Validation/frame_000000.png': 'val',
    }
    _video(tmp_path, [(attributes.replace('Validation"', 'Train"'), shapes) for attributes, shapes in tracks], [])
    with pytest.raises(InputError, match='has tracks of 2 tasks in one subset'):
        read_datasets(tmp_path)


def test_subsets_without_a_folder_of_their_own(tmp_path):
    tracks = [(f'label="x" subset="{name}"', _shapes(0)) for name in ('Train', 'Validation')]
    _video(tmp_path, tracks, [0, 1])
    with pytest.raises(InputError, match='is of a video, and the folder images/Train has no image called frame_000000'):
        read_datasets(tmp_path)


@pytest.mark.parametrize(('folders', 'count'), [(('images', 'images'), 2), (('images/train', 'images/val'), 4)])
def test_tracks_in_files_of_splits(tmp_path, folders, count):
    """Frames without a shape in a folder that the files share are of no known split."""
    for i, (split, folder) in enumerate(zip(('train', 'val'), folders)):
        _video(
            tmp_path,
            [(f'label="{split}"', _shapes(3 * i))],
            range(3 * i, 3 * i + 2),
            folder=folder,
            path=f'{split}.xml',
        )
    dataset = only(tmp_path)
    assert len(dataset.images) == count and not dataset.warnings and not dataset.missing
    assert {image.split for image in dataset.images.values()} == {'train', 'val'}
    assert all(annotation.name == image.split for image, annotation in dataset.annotations())


def test_images_named_like_frames_in_cvat_for_images(tmp_path):
    """Of a video, the names have no suffix."""
    draw(tmp_path, 'images/frame_000000.PNG')
    _cvat(tmp_path, {'0.jpg': _BOX('x', 1, 5, 0)})
    path = tmp_path / 'annotations.xml'
    path.write_text(path.read_text().replace('name="0.jpg"', 'name="frame_000000"'))
    dataset = only(tmp_path)
    assert [image.path.name for image in dataset.images.values()] == ['frame_000000.PNG'] and not dataset.missing


# --- splits ---


def test_files_of_splits_are_one_set(tmp_path):
    """An image in several of them is held out."""
    for split, names in (('train', '012'), ('val', '23'), ('test', '4')):
        _cvat(tmp_path, {f'{name}.jpg': _BOX(split, 1, 5, 0) for name in names}, path=f'{split}.xml')
    dataset = only(tmp_path)
    assert dataset.location == tmp_path and sorted(dataset.classes) == ['test', 'train', 'val']
    assert 'other annotations of' in said(dataset) and len(dataset.warnings) == 1
    assert splits(tmp_path, 'detection') == {
        f'images/{name}.jpg': split for name, split in zip('01234', ('train', 'train', 'val', 'val', 'test'))
    }


@pytest.mark.parametrize(
    ('train', 'val'),
    [
        ('train/annotations.xml', 'val/annotations.xml'),
        ('instances_train.xml', 'instances_val.xml'),
        ('default.xml', 'val.xml'),
    ],
)
def test_splits_in_names_of_files_and_folders(tmp_path, train, val):
    _cvat(tmp_path, {'0.jpg': _BOX('x', 1, 5, 0)}, path=train)
    _cvat(tmp_path, {'1.jpg': _BOX('x', 1, 5, 0)}, path=val)
    assert splits(tmp_path, 'detection') == {'images/0.jpg': 'train', 'images/1.jpg': 'val'}


def test_files_of_other_names_are_sets_of_their_own(tmp_path):
    _cvat(tmp_path, {'0.jpg': _BOX('x', 1, 5, 0)}, path='cars.xml')
    _cvat(tmp_path, {'1.jpg': _BOX('x', 1, 5, 0)}, path='ships.xml')
    assert [dataset.location.name for dataset in read_datasets(tmp_path)] == ['cars.xml', 'ships.xml']


def test_images_of_one_name_in_the_subsets_of_a_project(tmp_path):
    for subset in ('Train', 'Validation'):
        _cvat(tmp_path, {'0.jpg': _BOX(subset, 1, 5, 0)}, folder=f'images/{subset}')
    image = '<image name="0.jpg" subset="{0}">' + _BOX('{0}', 1, 5, 0) + '</image>'
    write(
        tmp_path, {'annotations.xml': f'<annotations>{image.format("Train")}{image.format("Validation")}</annotations>'}
    )
    dataset = only(tmp_path)
    assert {image.path.parent.name: image.annotations[0].name for image in dataset.images.values()} == {
        'Train': 'Train',
        'Validation': 'Validation',
    }
