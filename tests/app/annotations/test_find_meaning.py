"""Annotations mean what their tools meant: small inputs of public reports and of real exporters."""

import base64
import io
import json

import numpy as np
import pytest
from drawn_sets import coco, draw, edited, labelme, only, said, write
from PIL import Image

from icconv_mm import annotations
from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.find import read_datasets
from icconv_mm.app.annotations.readers import seg_maps, unsupported
from icconv_mm.app.annotations.report import draw_page
from icconv_mm.app.annotations.segmentations import mask_of
from icconv_mm.datasets.reading import DatasetError

pytest.importorskip('pycocotools')


def _counts(dataset):
    counts = dict.fromkeys(dataset.classes, 0)
    for _, annotation in dataset.annotations():
        counts[annotation.name] += 1
    return counts


def _converted(dataset, task, tmp_path, **options):
    return convert_dataset(dataset, task, tmp_path / 'out', **options)


# --- reported inputs ---


def test_two_labels_of_one_labelme_group_are_two_objects(reported_cases):
    dataset = annotations.read(reported_cases / 'labelme_group_of_two_labels/data')
    assert _counts(dataset) == {'cat': 4, 'dog': 4}
    assert sorted({tuple(annotation.box[2:]) for _, annotation in dataset.annotations()}) == [(20, 20), (28, 24)]


def test_masks_of_labelme(reported_cases):
    """As ``labelme.utils.shapes_to_label`` draws it: 105 pixels, x 13 to 27, y 7 to 13."""
    dataset = annotations.read(reported_cases / 'fmt_labelme_mask/data')
    masks = [mask_of(annotation.segmentation, (60, 40)) for _, annotation in dataset.annotations()]
    expected = np.zeros((40, 60), np.uint8)
    expected[7:14, 13:28] = 1
    assert any((mask == expected).all() for mask in masks)


def test_unique_body_parts_of_deeplabcut_are_no_animal(reported_cases):
    dataset = annotations.read(reported_cases / 'dlc_unique_bodyparts/data')
    assert _counts(dataset) == {'animal': 12} and dataset.keypoints == ['snout', 'tail']
    assert 'body parts of no animal' in said(dataset)


def test_keypoints_outside_the_image_are_not_learned(reported_cases):
    dataset = annotations.read(reported_cases / 'keypoints_outside/data')
    (strange,) = [annotation for _, annotation in dataset.annotations() if annotation.keypoints[5] == 0]
    assert strange.keypoints[3:] == [0, 0, 0] and max(strange.box[2:]) < 5
    assert '1 keypoints outside the image of 32 x 24, the first at (300, -24): not learned' in said(dataset)


def test_flips_that_swap_nothing_are_no_knowledge(reported_cases, tmp_path):
    dataset = annotations.read(reported_cases / 'fmt_yolo_identity_flip/data')
    assert _converted(dataset, 'pose', tmp_path).flip_pairs == [('left_ear', 'right_ear')]


def test_crowds_alone_are_refused(reported_cases, tmp_path):
    data = reported_cases / 'fmt_coco_all_crowd/data'
    with pytest.raises(DatasetError, match=r'all 4 objects are crowds .* use --crowd-as-objects'):
        _converted(annotations.read(data), 'instance', tmp_path)
    (dataset,) = read_datasets(data, crowd_as_objects=True)
    assert _converted(dataset, 'instance', tmp_path).counts == {'cell': 4}


def test_the_newest_annotation_of_two_people_counts(reported_cases):
    dataset = annotations.read(reported_cases / 'fmt_coco_listed_twice/data')
    assert {image.path.name: [annotation.box for annotation in image.annotations] for image in dataset} == {
        'a.png': [[10, 10, 10, 10]],
        'b.png': [[30, 10, 10, 10]],
    }
    assert 'the first ones are taken' in said(dataset)


def test_stuff_beside_instances_is_not_read(reported_cases):
    dataset = annotations.read(reported_cases / 'fmt_coco_one_folder_two_sets/data')
    assert _counts(dataset) == {'cell': 2} and sorted(image.split for image in dataset) == ['train', 'val']
    assert 'stuff_train.json: not read, as instances_train.json is beside it' in said(dataset)


def test_areas_of_zero_become_those_of_the_boxes(reported_cases):
    dataset = annotations.read(reported_cases / 'coco_area_0/data')
    assert all(
        annotation.area == annotation.box[2] * annotation.box[3] == 2000 for _, annotation in dataset.annotations()
    )


def test_boxes_of_zero_become_those_of_the_keypoints(reported_cases):
    dataset = annotations.read(reported_cases / 'coco_keypoints_box_0/data')
    assert len(dataset) == 10
    for _, annotation in dataset.annotations():
        points = np.reshape(annotation.keypoints, (-1, 3))[:, :2]
        assert (points > annotation.box[:2]).all() and (points < np.add(annotation.box[:2], annotation.box[2:])).all()


def test_yolo_with_the_names_alone(reported_cases):
    assert _counts(annotations.read(reported_cases / 'fmt_yolo_classes_txt/data')) == {'ant': 1, 'cell': 1}


@pytest.mark.parametrize('kind', ['jpeg', 'rgb', 'semicolon', 'suffix', 'tiff'])
def test_masks_beside_images_are_segmentation_maps(reported_cases, kind, tmp_path):
    dataset = annotations.read(reported_cases / 'masks_as_classes/data' / kind)
    converted = _converted(dataset, 'semantic', tmp_path, thorough=True)
    assert len(dataset) == 5 and dataset.tasks() == ['semantic'] and list(converted.counts.values())[1] > 0.2
    assert kind != 'semicolon' or converted.classes == ['soil', 'weed']


@pytest.mark.parametrize('options', [{}, {'classes': ['background', 'polyp']}])
@pytest.mark.parametrize('case', ['mask_soft_edge', 'mask_as_jpg'])
def test_greys_at_the_edges_are_no_classes(reported_cases, case, options, tmp_path):
    converted = _converted(annotations.read(reported_cases / case / 'data'), 'semantic', tmp_path, **options)
    assert converted.classes == options.get('classes', ['background', 'foreground'])
    assert list(converted.counts.values()) == pytest.approx([0.862, 0.138], abs=1e-3)


def test_a_table_belongs_to_its_own_folder(reported_cases, tmp_path):
    converted = [
        _converted(dataset, 'semantic', tmp_path) for dataset in read_datasets(reported_cases / 'two_tables/data')
    ]
    assert [dataset.classes for dataset in converted] == [['ground', 'dog', 'cat'], ['ground', 'car', 'bus']]


def test_cityscapes_as_it_lies(reported_cases, tmp_path):
    dataset = annotations.read(reported_cases / 'fmt_cityscapes_layout/data')
    converted = _converted(dataset, 'semantic', tmp_path, thorough=True)
    assert converted.splits == {'train': 2, 'val': 1} and len(converted.classes) == 19
    assert {name for name, share in converted.counts.items() if share} == {'road', 'sidewalk'}


def test_equal_images_of_two_splits_are_reported_in_a_training(reported_cases, tmp_path):
    converted = _converted(annotations.read(reported_cases / 'train_leak_unsaid/data'), 'detection', tmp_path)
    assert any('images in several splits under other names: ' in note for note in converted.notes)


# --- LabelMe ---


def _shapes(tmp_path, *shapes, **more):
    labelme(tmp_path / '0.json', *shapes, **more)
    return annotations.read(tmp_path)


def test_labels_of_labelme_that_are_no_class(tmp_path):
    corners = [[1, 1], [9, 9]]
    dataset = _shapes(tmp_path, ('cat', 'rectangle', corners), ('__ignore__', 'rectangle', corners))
    assert _counts(dataset) == {'cat': 1}
    assert "1 objects of '__ignore__', which is no class: not learned" in said(dataset)


@pytest.mark.parametrize(
    ('kind', 'points', 'area'),
    [
        ('oriented_rectangle', [[4, 1], [8, 5], [6, 7], [2, 3]], 16),
        ('line', [[0, 5], [15, 5]], 160),  # ten rows of sixteen pixels
        ('linestrip', [[0, 5], [8, 5], [15, 5]], 160),
        ('point', [[8, 6]], 97),
    ],
)
def test_shapes_that_labelme_draws(tmp_path, kind, points, area):
    """Areas as ``labelme.utils.shape_to_mask`` of LabelMe 6.3.1 draws them, to an edge of pixels."""
    dataset = _shapes(tmp_path, ('cat', kind, points))
    ((_, annotation),) = dataset.annotations()
    assert annotation.name == 'cat' and mask_of(annotation.segmentation, (16, 12)).sum() == pytest.approx(area, abs=8)


def test_masks_of_labelme_that_do_not_fit_are_left_out(tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.ones((3, 4), bool)).save(file, 'PNG')
    mask = base64.b64encode(file.getvalue()).decode()
    shapes = [
        dict(label='cat', shape_type='mask', points=points, mask=mask)
        for points in ([[1, 1], [4, 3]], [[1, 1], [9, 9]])
    ]
    shapes.append(dict(label='cat', shape_type='mask', points=[[1, 1], [4, 3]], mask='AAAA'))
    shapes.append(dict(label='cat', shape_type='blob', points=[[1, 1], [4, 3]]))
    draw(tmp_path, '0.jpg')
    (tmp_path / '0.json').write_text(json.dumps(dict(shapes=shapes, imagePath='0.jpg')))
    dataset = annotations.read(tmp_path)
    ((_, annotation),) = dataset.annotations()
    assert annotation.box == [1, 1, 4, 3] and annotation.area == 12
    for problem in ('do not fit its 4 x 3 pixels', 'mask: cannot be read', "a shape of the type 'blob': left out"):
        assert problem in said(dataset)


def test_points_of_a_group_of_two_labels_belong_to_nobody(tmp_path):
    box = [[1, 1], [9, 9]]
    points = [('nose', 'point', [[2, 2]], 1), ('tail', 'point', [[5, 5]], 1)]
    dataset = _shapes(tmp_path, ('cat', 'rectangle', box, 1), ('dog', 'rectangle', box, 1), *points)
    assert not any(
        annotation.keypoints for _, annotation in dataset.annotations()
    ) and 'which says whose they are' in said(dataset)


def test_a_keypoint_that_is_there_twice_is_reported(tmp_path):
    points = [('nose', 'point', [[2, 2]], 1), ('nose', 'point', [[4, 4]], 1), ('tail', 'point', [[5, 5]], 1)]
    dataset = _shapes(tmp_path, *points)
    assert "group_id 1 has 2 points 'nose': the last is taken" in said(dataset)
    ((_, annotation),) = dataset.annotations()
    assert annotation.keypoints == [4, 4, 2, 5, 5, 2]


# --- COCO ---


def test_most_objects_of_a_class_as_crowds_are_reported(tmp_path):
    draw(tmp_path, '0.jpg', '1.jpg', '2.jpg')
    coco(tmp_path / 'a.json', ['0.jpg', '1.jpg', '2.jpg'])
    with edited(tmp_path / 'a.json') as content:
        for entry in content['annotations'][:2]:
            entry['iscrowd'] = 1
    converted = _converted(annotations.read(tmp_path), 'detection', tmp_path)
    assert any("2 of 3 'x' are crowds or ignored" in note for note in converted.notes)


def test_different_objects_of_an_image_that_is_listed_twice_are_all_read(tmp_path):
    draw(tmp_path, '0.jpg')
    coco(tmp_path / 'a.json', ['0.jpg', '0.jpg'], [[1, 1, 5, 5], [8, 2, 5, 5]])
    dataset = annotations.read(tmp_path)
    assert _counts(dataset) == {'x': 2} and 'with other objects: all are taken' in said(dataset)


@pytest.mark.parametrize('is_used', [False, True])
def test_the_project_of_roboflow_is_no_class(tmp_path, is_used):
    draw(tmp_path, '0.jpg', '1.jpg')
    coco(tmp_path / 'a.json', ['0.jpg', '1.jpg'])
    with edited(tmp_path / 'a.json') as content:
        content['categories'] = [
            dict(id=0, name='cells', supercategory='none'),
            dict(id=1, name='red', supercategory='cells'),
            dict(id=2, name='white', supercategory='cells'),
        ]
        content['annotations'][0]['category_id'] = 1 - is_used
    assert annotations.read(tmp_path).classes == ['cells'] * is_used + ['red', 'white']


def test_an_annotation_that_is_there_twice_is_read_once(tmp_path):
    draw(tmp_path, '0.jpg')
    coco(tmp_path / 'a.json', ['0.jpg'], [[1, 1, 5, 5]])
    with edited(tmp_path / 'a.json') as content:
        content['annotations'] *= 2
    dataset = annotations.read(tmp_path)
    assert _counts(dataset) == {'x': 1} and '1 annotations are there twice: read once' in said(dataset)


def test_the_background_is_no_class(tmp_path):
    draw(tmp_path, '0.jpg', '1.jpg')
    coco(tmp_path / 'a.json', ['0.jpg', '1.jpg'])
    with edited(tmp_path / 'a.json') as content:
        content['categories'] = [dict(id=1, name='cell'), dict(id=2, name='__background__')]
        content['annotations'][1]['category_id'] = 2
        del content['annotations'][0]['id']
    dataset = annotations.read(tmp_path)
    assert _counts(dataset) == {'cell': 1} and len(dataset) == 2
    assert "1 objects of '__background__', which is no class: not learned" in said(dataset)


def test_an_image_beside_a_folder_with_one_of_its_name(tmp_path):
    draw(tmp_path, 'images/a.jpg', 'images/sub/a.jpg')
    coco(tmp_path / 'labels/x.json', ['a.jpg', 'sub/a.jpg'], [[1, 1, 5, 5], [2, 2, 5, 5]])
    boxes = {
        image.path.relative_to(tmp_path).as_posix(): image.annotations[0].box for image in annotations.read(tmp_path)
    }
    assert boxes == {'images/a.jpg': [1, 1, 5, 5], 'images/sub/a.jpg': [2, 2, 5, 5]}


# --- YOLO ---

_YOLO = {f'{folder}/{n}.txt': '0 .5 .5 .2 .2\n' for folder in ('labels',) for n in '012'}


@pytest.mark.parametrize(
    ('texts', 'splits'),
    [
        ({'data.yaml': 'names: [cat]\nnc: 1\n'}, ['', '', '']),  # supervision
        ({'obj.names': 'cat\n', **{f'images/{n}.txt': '0 .5 .5 .2 .2\n' for n in '012'}}, ['', '', '']),
        (
            {
                'obj.data': 'classes = 1\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n',
                'obj.names': 'cat\n',
                'train.txt': 'data/images/0.jpg\ndata/images/1.jpg\n',
                'valid.txt': 'data/images/2.jpg\n',
                **{f'images/{n}.txt': '0 .5 .5 .2 .2\n' for n in '012'},
            },
            ['train', 'train', 'val'],
        ),
    ],
)
def test_yolo_without_a_whole_yaml(tmp_path, texts, splits):
    beside = {} if 'images/0.txt' in texts else _YOLO
    draw(tmp_path, *(f'images/{n}.jpg' for n in '012'))
    write(tmp_path, {**beside, **texts})
    dataset = annotations.read(tmp_path)
    assert _counts(dataset) == {'cat': 3} and not dataset.warnings and not dataset.missing
    assert [image.split for image in sorted(dataset, key=lambda image: image.path)] == splits


def test_keypoints_of_yolo_without_their_number_are_no_polygons(tmp_path):
    draw(tmp_path, 'images/0.jpg')
    points = ' '.join(['.4 .4 2', '.6 .6 1'] * 2)
    write(tmp_path, {'classes.txt': 'cat\n', 'labels/0.txt': f'0 .5 .5 .2 .2 {points}\n'})
    with pytest.raises(DatasetError, match='has keypoints, and no YAML gives their kpt_shape'):
        annotations.read(tmp_path)


# --- segmentation maps ---


def _colored(tmp_path, values):
    draw(tmp_path, *(f'original/{n}.jpg' for n in '012'))
    (tmp_path / 'ground_truth').mkdir()
    for number in range(3):
        pixels = np.array(values, np.uint8)[np.arange(192).reshape(12, 16) % len(values)]
        Image.fromarray(pixels).save(tmp_path / f'ground_truth/{number}.png')


def test_colours_without_a_table_are_refused_with_the_colours(tmp_path):
    _colored(tmp_path, [(0, 0, 0), (255, 0, 0), (0, 0, 0)])
    with pytest.raises(DatasetError, match=r'class_dict.csv .* 0.png has \(0, 0, 0\), \(255, 0, 0\)'):
        annotations.read(tmp_path)


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('class_dict.csv', 'name,hex\nsoil,#000000\nweed,#FF0000\n'),
        ('class_dict.csv', 'name\tr\tg\tb\nsoil\t0\t0\t0\nweed\t255\t0\t0\n'),
        ('classes.txt', 'soil #000000\nweed #ff0000\n'),
        ('label_colors.txt', '0 0 0 soil\n255 0 0 weed\n'),
    ],
)
def test_tables_of_colours(tmp_path, name, text):
    _colored(tmp_path, [(0, 0, 0), (255, 0, 0), (0, 0, 0)])
    write(tmp_path, {name: text})
    converted = _converted(annotations.read(tmp_path), 'semantic', tmp_path)
    assert converted.classes == ['soil', 'weed'] and converted.counts['weed'] == pytest.approx(1 / 3, abs=0.02)


def test_colours_of_pascal_voc_without_a_table_are_no_classes(tmp_path):
    _colored(tmp_path, [(0, 0, 0), (128, 0, 0)])
    (tmp_path / 'original').rename(tmp_path / 'JPEGImages')
    (tmp_path / 'ground_truth').rename(tmp_path / 'SegmentationClass')
    with pytest.raises(DatasetError, match=r'class_dict.csv .* 0.png has \(128, 0, 0\), \(0, 0, 0\)'):
        annotations.read(tmp_path)


def test_ade20k_as_it_lies(tmp_path):
    """The value 0 is no class: mmseg's ``reduce_zero_label``."""
    for split in ('training', 'validation'):
        draw(tmp_path, *(f'images/{split}/{split}{n}.jpg' for n in '01'))
        (tmp_path / 'annotations' / split).mkdir(parents=True)
        for n in '01':
            labels = np.repeat([[0, 1, 2, 2]], 12, 0).repeat(4, 1).astype(np.uint8)
            Image.fromarray(labels).save(tmp_path / f'annotations/{split}/{split}{n}.png')
    lines = ['Idx\tRatio\tTrain\tVal\tStuff\tName', '1\t.1\t1\t1\t1\twall', '2\t.1\t1\t1\t1\tbuilding, edifice']
    write(tmp_path, {'objectInfo150.txt': '\n'.join(lines)})
    converted = _converted(annotations.read(tmp_path), 'semantic', tmp_path)
    assert converted.classes == ['wall', 'building'] and converted.splits == {'train': 2, 'val': 2}
    assert converted.counts == pytest.approx({'wall': 1 / 3, 'building': 2 / 3})


@pytest.mark.parametrize('folders', [('gt_cars', 'cars'), ('with_mask', 'without_mask'), ('target', 'background')])
def test_grey_images_of_classes_are_no_maps(tmp_path, folders):
    random = np.random.default_rng(0)
    for folder in folders:
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.fromarray(random.integers(0, 255, (24, 32), np.uint8)).save(tmp_path / f'{folder}/{number}.png')
    assert annotations.read(tmp_path).tasks() == ['classification']


def test_tasks_of_label_studio_that_nobody_annotated(tmp_path):
    draw(tmp_path, '0.jpg', '1.jpg')
    value = dict(x=10, y=10, width=50, height=50, rectanglelabels=['x'])
    done = [dict(was_cancelled=False, result=[dict(type='rectanglelabels', value=value)])]
    tasks = [dict(data=dict(image='0.jpg'), annotations=done), dict(data=dict(image='1.jpg'), predictions=[])]
    write(tmp_path, {'a.json': json.dumps(tasks)})
    assert _counts(annotations.read(tmp_path)) == {'x': 1}


def _choice(*names, question='class', **more):
    return dict(id=question, type='choices', from_name=question, value=dict(more, choices=list(names)))


def _tasks_of(tmp_path, *results):
    tasks = []
    for number, result in enumerate(results):
        draw(tmp_path, f'{number}.jpg')
        tasks.append(dict(data=dict(image=f'{number}.jpg'), annotations=[dict(was_cancelled=False, result=result)]))
    write(tmp_path, {'a.json': json.dumps(tasks)})
    return only(tmp_path)


_PLACE = dict(x=10, y=10, width=50, height=50)
_CAR = dict(id='r', type='rectanglelabels', value=dict(_PLACE, rectanglelabels=['car']))


def test_choices_of_regions_are_no_classes_of_images(tmp_path):
    of_region = dict(_choice('blue', **_PLACE), id='r')
    dataset = _tasks_of(tmp_path, [_CAR, of_region], [of_region, _CAR], [_choice('blue'), _CAR], [])
    assert [image.labels for image in dataset] == [[], [], ['blue'], []]
    assert [len(image.annotations) for image in dataset] == [1, 1, 1, 0] and not dataset.notes


def test_regions_of_an_image_that_was_rotated_in_label_studio_are_left_out(tmp_path):
    """Their shares are of the sides of the rotated image, as it was shown."""
    dataset = _tasks_of(tmp_path, [_CAR, dict(_CAR, image_rotation=-90)], [dict(_CAR, image_rotation=0)])
    assert [len(image.annotations) for image in dataset] == [1, 1]
    ((where, what),) = dataset.warnings
    assert where.endswith('[0]: result[1]') and 'on the image rotated by 270 degrees: rotate it back' in what


def test_images_with_a_choice_and_no_box_are_images_without_objects(tmp_path):
    dataset = _tasks_of(tmp_path, [_CAR, _choice('day')], [_choice('night')], [_choice('day')])
    converted = _converted(dataset, 'detection', tmp_path)
    assert sum(converted.splits.values()) == 3 and converted.counts == {'car': 1}


@pytest.mark.parametrize('questions', ['one', 'two'])
def test_several_choices_of_an_image_are_told_and_chosen_by_classes(tmp_path, questions):
    several = [_choice('cat', 'blurred')] if questions == 'one' else [_choice('cat'), _choice('blurred', question='q')]
    dataset = _tasks_of(tmp_path, several, [_choice('dog')], [_choice('cat')])
    (note,) = dataset.notes
    assert note.startswith('1 images have several classes') and 'cat, blurred' in note and '--classes' in note
    converted = _converted(dataset, 'classification', tmp_path)
    assert converted.classes == ['cat', 'dog'] and converted.counts == {'cat': 1, 'dog': 1}
    converted = _converted(dataset, 'classification', tmp_path, classes=['dog', 'cat'])
    assert converted.counts == {'dog': 1, 'cat': 2}
    assert annotations.read(tmp_path, classes=['cat', 'dog']).images[tmp_path / '0.jpg'].label == 'cat'


def test_all_tags_of_cvat_are_handed_over_and_written_again(tmp_path):
    draw(tmp_path, '0.jpg', '1.jpg')
    tags = ['<tag label="rain"/><tag label="night"/>', '<tag label="rain"/>']
    images = ''.join(f'<image name="{i}.jpg">{tag}</image>' for i, tag in enumerate(tags))
    write(tmp_path, {'a.xml': f'<annotations>{images}</annotations>'})
    dataset = annotations.read(tmp_path)
    for form in ('cvat', 'labelstudio'):
        getattr(dataset, f'to_{form}')(tmp_path / form)
        again = annotations.read(tmp_path / form)
        assert [image.labels for image in again] == [['rain', 'night'], ['rain']]


# --- not read ---


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        (
            {'labels/0.txt': '0 .5 .5 .2 .2\n'},
            'no file names the classes of the text files, which are as those of YOLO',
        ),
        ({'via.json': '{"_via_img_metadata": {}}'}, 'is of VIA, which is not read'),
        ({'0.json': '{"info": {"description": "ISAT"}, "objects": []}'}, 'is of ISAT'),
        ({'a.ndjson': '{"data_row": {"id": "x"}}'}, 'is of Labelbox'),
        ({'0.json': '{"version": "2.0", "schema_ref": "darwin_2.0.json", "annotations": []}'}, 'is of Darwin'),
        ({'0.json': '{"objects": [{"classTitle": "cat"}], "tags": []}'}, 'is of Supervisely'),
        ({'a.csv': 'ImageID,Source,LabelName,Confidence,XMin\n'}, 'is of Open Images.*datum convert -if open_images'),
        ({'Annotations_Part/0.mat': 'MATLAB 5.0'}, 'is of Pascal-part'),
        ({'label_2/0.txt': 'Car 0.00 0 -1.58 587.01 173.33 614.12 200.12\n'}, 'is of KITTI.*datum convert -if kitti'),
    ],
)
def test_what_is_not_read_is_named(tmp_path, texts, message):
    draw(tmp_path, 'images/0.jpg', 'others/0.jpg')
    write(tmp_path, texts)
    with pytest.raises(DatasetError, match=message):
        annotations.read(tmp_path)


def test_the_page_shows_what_was_decided(reported_cases, tmp_path):
    """Crowds are grey and hatched; a panoptic set, whose maps are written anew below folders, is on the page."""
    (dataset,) = read_datasets(reported_cases / 'fmt_coco_all_crowd/data')
    page = np.asarray(Image.open(draw_page(dataset, [], tmp_path / 'page.png')))
    (learned,) = read_datasets(reported_cases / 'fmt_coco_all_crowd/data', crowd_as_objects=True)
    other = np.asarray(Image.open(draw_page(learned, [], tmp_path / 'other.png')))
    greys = [(np.abs(image.astype(int) - 128).max(-1) < 8).mean() for image in (page, other)]
    assert greys[0] > greys[1] + 0.01


def test_pages_of_maps_that_are_written_anew(tmp_path):
    for folder in ('images', 'masks'):
        (tmp_path / 'data' / folder / 'deep').mkdir(parents=True)
        for number in range(2):
            pixels = np.repeat([[3, 7]], 8, 0).repeat(8, 1).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f'data/{folder}/deep/{number}.png')
    folder = annotations.read(tmp_path / 'data').to_coco(tmp_path / 'panoptic')
    (dataset,) = read_datasets(folder)
    converted = _converted(dataset, 'semantic', tmp_path)
    assert draw_page(dataset, [converted], tmp_path / 'page.png').is_file() and not dataset.warnings


def test_images_that_are_elsewhere_are_named(tmp_path):
    coco(tmp_path / 'a.json', ['far/0.jpg', 'far/1.jpg'])
    with pytest.raises(DatasetError, match=r'none of the 2 images .* is there, the first: .*far/0.jpg: give a folder'):
        annotations.read(tmp_path)


def test_many_folders_of_classes_are_not_compared_with_each_other(tmp_path, monkeypatch):
    """ImageNet has 21,841 of them, and their images may have the same names."""
    for number in range(60):
        draw(tmp_path, f'class_{number}/0.jpg')
    calls = []
    has, unshared = unsupported._has, seg_maps._unshared
    monkeypatch.setattr(unsupported, '_has', lambda *given: calls.append(given) or has(*given))
    monkeypatch.setattr(seg_maps, '_unshared', lambda *given: calls.append(given) or unshared(*given))
    assert len({image.label for image in annotations.read(tmp_path)}) == 60
    assert len(calls) <= 4 * 60
