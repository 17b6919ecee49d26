"""What is written for other tools is read again equal, by this package and by them."""

import json

import labelled
import numpy as np
import pytest
from drawn_sets import edited
from PIL import Image

from icconv_mm import annotations
from icconv_mm.app.annotations.brush import decode_brush, encode_brush
from icconv_mm.app.annotations.dataset import AnnotatedImage
from icconv_mm.app.annotations.door import read_dataset
from icconv_mm.app.annotations.segmentations import mask_of
from icconv_mm.app.annotations.writers.images import place_images
from icconv_mm.app.annotations.writers.yolo import polygons_of
from icconv_mm.datasets.reading import DatasetError
from icconv_mm.errors import ArgumentError

pytest.importorskip('pycocotools')


def _objects(dataset):
    """Class, box, mask and keypoints of each object, by split and name of the image; to a millionth of a pixel."""
    objects = {}
    for image in dataset:
        entries = []
        for annotation in image.annotations or ():
            mask = None if annotation.segmentation is None else mask_of(annotation.segmentation, image.size).tobytes()
            points = (
                None
                if annotation.keypoints is None
                else tuple(round(float(value), 3) for value in annotation.keypoints)
            )
            entries.append(
                (
                    annotation.name,
                    annotation.crowd,
                    tuple(round(float(value), 3) for value in annotation.box),
                    mask,
                    points,
                )
            )
        objects[image.split, image.path.name] = sorted(entries, key=repr)
    return objects


KINDS = {'polygons': labelled.coco, 'runs': labelled.coco, 'keypoints': labelled.coco, 'boxes': labelled.yolo}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('to', ['coco', 'yolo', 'labelstudio', 'cvat'])
def test_what_is_written_is_read_again_equal(tmp_path, kind, to):
    dataset = annotations.read(KINDS[kind](tmp_path / 'data', kind))
    folder = getattr(dataset, f'to_{to}')(tmp_path / 'out')
    again = annotations.read(folder)
    before, after = _objects(dataset), _objects(again)
    if kind == 'keypoints' and to in ('yolo', 'cvat'):  # hold no mask beside keypoints, or no box
        before, after = (
            sorted((entry[0], entry[4]) for entries in objects.values() for entry in entries)
            for objects in (before, after)
        )
    assert after == before and set(again.classes) == set(dataset.classes) and again.keypoints == dataset.keypoints
    assert all(path.is_symlink() for path in (folder / 'images').rglob('*.png'))


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    dataset = annotations.read(labelled.coco(tmp_path / 'data'))
    with pytest.raises(ArgumentError, match='is not an empty folder'):
        dataset.to_coco(tmp_path / 'data')


@pytest.mark.parametrize('copy', [True, False])
def test_images_of_equal_names_are_placed_apart_and_stay_as_they_were(tmp_path, copy):
    """One without a split in a folder called like a split, and one of that split."""
    images = [AnnotatedImage(tmp_path / 'train' / '1.png'), AnnotatedImage(tmp_path / 'other' / '1.png', split='train')]
    images.append(AnnotatedImage(tmp_path / 'x' / '2.png'))
    for number, image in enumerate(images):
        image.path.parent.mkdir()
        image.path.write_bytes(bytes([number]))
    placed = place_images(images, tmp_path / 'out', copy, by_split=True)
    assert len(set(placed.values())) == 3
    assert [(tmp_path / 'out' / placed[image.path]).read_bytes() for image in images] == [b'\0', b'\1', b'\2']
    assert [image.path.read_bytes() for image in images] == [b'\0', b'\1', b'\2']
    with pytest.raises(FileExistsError):  # never through a link that is there
        place_images(images, tmp_path / 'out', copy, by_split=True)


@pytest.mark.parametrize('has_links', [True, False])
def test_images_are_copied_on_request_and_where_there_are_no_links(tmp_path, monkeypatch, has_links):
    def symlink(source, target):
        raise OSError(1314, 'a required privilege is not held by the client')  # as on Windows

    if not has_links:
        monkeypatch.setattr('os.symlink', symlink)
    folder = annotations.read(labelled.coco(tmp_path / 'data')).to_coco(tmp_path / 'out', copy=has_links)
    assert not any(path.is_symlink() for path in folder.rglob('*')) and len(list(folder.rglob('*.png'))) == 3
    assert len(annotations.read(folder)) == 3


def test_segmentation_maps_become_panoptic_files(tmp_path):
    """Values, ignored pixels and names come back, whatever the numbers in the maps were."""
    for folder in ('images', 'masks'):
        (tmp_path / 'data' / folder).mkdir(parents=True)
    values = np.random.default_rng(0).choice([0, 7, 9, 255], (4, 12, 16)).astype(np.uint8)
    for number, seg_map in enumerate(values):
        Image.fromarray(np.full((12, 16, 3), 40 * number, np.uint8)).save(tmp_path / f'data/images/{number}.png')
        Image.fromarray(seg_map).save(tmp_path / f'data/masks/{number}.png')
    (tmp_path / 'data/classes.txt').write_text('0 road\n7 car\n9 sky\n')
    folder = annotations.read(tmp_path / 'data').to_coco(tmp_path / 'out')
    again = annotations.read(folder)
    assert again.tasks() == ['semantic'] and again.seg_map_classes == {1: 'road', 2: 'car', 3: 'sky'}
    for image in again:
        pixels = np.asarray(Image.open(image.seg_map))[..., 0]
        assert (pixels == np.array([1, 2, 3, 0])[np.searchsorted([0, 7, 9, 255], values[int(image.path.stem)])]).all()


@pytest.mark.parametrize('to', ['yolo', 'labelstudio', 'cvat'])
def test_segmentation_maps_are_refused_elsewhere(tmp_path, to):
    for folder in ('images', 'masks'):
        (tmp_path / 'data' / folder).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / f'data/{folder}/{number}.png')
    with pytest.raises(ArgumentError, match=r'^to: '):
        getattr(annotations.read(tmp_path / 'data'), f'to_{to}')(tmp_path / 'out')


@pytest.mark.parametrize('to', ['labelstudio', 'cvat'])
def test_classes_of_images_are_written(tmp_path, to):
    for name in ('cat', 'dog'):
        (tmp_path / 'data' / name).mkdir(parents=True)
        Image.fromarray(labelled.image(0)).save(tmp_path / f'data/{name}/{name}.png')
    folder = getattr(annotations.read(tmp_path / 'data'), f'to_{to}')(tmp_path / 'out')
    assert {image.path.stem: image.label for image in annotations.read(folder)} == {'cat': 'cat', 'dog': 'dog'}


@pytest.mark.parametrize('ending', ['.json', '.instance.json'])
def test_predictions_become_pre_annotations(tmp_path, ending):
    """The results of ``tools/infer.py`` are predictions of Label Studio, with their scores."""
    Image.fromarray(labelled.image(0)).save(tmp_path / 'a.png')
    images = [dict(id=1, file_name='a.png', width=labelled.SIZE[0], height=labelled.SIZE[1])]
    (tmp_path / f'images{ending}').write_text(json.dumps(dict(images=images, categories=[dict(id=3, name='cat')])))
    result = dict(image_id=1, category_id=3, bbox=[4, 6, 20, 16], score=0.8)
    (tmp_path / f'predictions{ending}').write_text(json.dumps([result]))
    (tmp_path / 'vis').mkdir()
    Image.fromarray(labelled.image(1)).save(tmp_path / 'vis/a.png')  # with the predictions drawn on it
    dataset = annotations.read(tmp_path / f'predictions{ending}')
    ((image, annotation),) = dataset.annotations()
    assert image.path == tmp_path / 'a.png'
    assert (annotation.name, annotation.box, annotation.score) == ('cat', [4, 6, 20, 16], 0.8)
    (task,) = json.loads((dataset.to_labelstudio(tmp_path / 'out') / 'tasks.json').read_text())
    assert task['annotations'] == [] and task['predictions'][0]['score'] == 0.8
    assert task['predictions'][0]['result'][0]['value']['rectanglelabels'] == ['cat']
    with pytest.raises(DatasetError, match='its tasks have predictions, and no annotation yet'):
        annotations.read(tmp_path / 'out')


def test_predicted_people_whose_keypoints_score_little_are_left_out(tmp_path):
    """A network finds many of them in each image; they are no damage."""
    Image.fromarray(labelled.image(0)).save(tmp_path / 'a.png')
    images = [dict(id=1, file_name='a.png', width=labelled.SIZE[0], height=labelled.SIZE[1])]
    categories = [dict(id=1, name='cat', keypoints=['nose', 'tail'], skeleton=[])]
    (tmp_path / 'images.json').write_text(json.dumps(dict(images=images, categories=categories)))
    results = [
        dict(image_id=1, category_id=1, keypoints=[4, 6, score, 20, 16, score], score=score) for score in (0.9, 0.09)
    ]
    (tmp_path / 'predictions.json').write_text(json.dumps(results))
    dataset = annotations.read(tmp_path / 'predictions.json')
    ((_, annotation),) = dataset.annotations()
    assert annotation.score == 0.9 and not dataset.warnings


def test_images_in_which_nothing_was_found_are_not_annotated_yet(tmp_path):
    images = []
    for number in (1, 2):
        Image.fromarray(labelled.image(number)).save(tmp_path / f'{number}.png')
        images.append(dict(id=number, file_name=f'{number}.png', width=labelled.SIZE[0], height=labelled.SIZE[1]))
    (tmp_path / 'images.json').write_text(json.dumps(dict(images=images, categories=[dict(id=3, name='cat')])))
    result = dict(image_id=1, category_id=3, bbox=[4, 6, 20, 16], score=0.8)
    (tmp_path / 'predictions.json').write_text(json.dumps([result]))
    dataset = annotations.read(tmp_path / 'predictions.json')
    tasks = json.loads((dataset.to_labelstudio(tmp_path / 'out') / 'tasks.json').read_text())
    assert [(task['annotations'], len(task['predictions'])) for task in tasks] == [([], 1), ([], 0)]


@pytest.mark.parametrize('to', ['coco', 'yolo', 'labelstudio', 'cvat'])
def test_links_to_files_of_other_names_are_written_by_their_own(tmp_path, to):
    """As data stores have them: DVC's cache, Hugging Face's."""
    images = labelled.coco(tmp_path / 'data') / 'images'
    names = sorted(path.name for path in images.iterdir())
    (tmp_path / 'store').mkdir()
    for number, name in enumerate(names):
        (images / name).rename(tmp_path / 'store' / f'{number:08x}')
        (images / name).symlink_to(tmp_path / 'store' / f'{number:08x}')
    folder = getattr(annotations.read(tmp_path / 'data'), f'to_{to}')(tmp_path / 'out')
    assert sorted(path.name for path in folder.rglob('*.png')) == names
    assert len(annotations.read(folder)) == len(names)


def test_maps_of_images_that_differ_in_their_suffix(tmp_path):
    for folder in ('images', 'maps'):
        (tmp_path / 'data' / folder).mkdir(parents=True)
    content = dict(images=[], annotations=[], categories=[dict(id=k, name=str(k), isthing=0) for k in (1, 2)])
    for number, name in enumerate(('a.jpg', 'a.png'), 1):
        Image.new('RGB', (16, 12), (99 * number,) * 3).save(tmp_path / 'data/images' / name)
        Image.new('RGB', (16, 12), (number, 0, 0)).save(tmp_path / f'data/maps/{number}.png')
        content['images'].append(dict(id=number, file_name=name, width=16, height=12))
        segments = [dict(id=number, category_id=number, area=192, iscrowd=0)]
        content['annotations'].append(dict(image_id=number, file_name=f'{number}.png', segments_info=segments))
    (tmp_path / 'data/maps.json').write_text(json.dumps(content))
    folder = annotations.read(tmp_path / 'data').to_coco(tmp_path / 'out')
    (file,) = folder.rglob('panoptic*.json')
    written = json.loads(file.read_text())['annotations']
    colors = [Image.open(file.with_suffix('') / entry['file_name']).getpixel((0, 0)) for entry in written]
    assert [color[0] for color in colors] == [1, 2]


def test_drawn_predictions_are_no_images(tmp_path):
    (tmp_path / 'vis').mkdir()
    Image.fromarray(labelled.image(0)).save(tmp_path / 'vis/a.png')
    images = [dict(id=1, file_name='a.png', width=labelled.SIZE[0], height=labelled.SIZE[1])]
    (tmp_path / 'images.json').write_text(json.dumps(dict(images=images, categories=[dict(id=3, name='cat')])))
    result = dict(image_id=1, category_id=3, bbox=[4, 6, 20, 16], score=0.8)
    (tmp_path / 'predictions.json').write_text(json.dumps([result]))
    with pytest.raises(DatasetError, match=r'none of the 1 images that its annotations name is there'):
        annotations.read(tmp_path / 'predictions.json')


def test_polygons_are_the_edges_of_the_pixels():
    """pycocotools fills them to the very mask, of any form without holes."""
    import cv2
    from pycocotools.mask import decode, frPyObjects, merge

    random = np.random.default_rng(0)
    for _ in range(50):
        blurred = cv2.GaussianBlur(random.random((40, 50), dtype=np.float32), (0, 0), 2)
        mask = np.zeros((40, 50), np.uint8)
        contours, _ = cv2.findContours((blurred > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mask, contours, -1, 1, -1)
        polygons = [piece.ravel().tolist() for piece in polygons_of(mask)]
        assert (decode(merge(frPyObjects(polygons, 40, 50))) == mask).all()


def test_brushes_of_label_studio():
    """The bytes are those of ``brush.mask2rle`` of label-studio-sdk 2.1.2."""
    mask = np.zeros((3, 5), np.uint8)
    mask[1, 1:4] = 1
    written = [0, 0, 0, 60, 57, 27, 254, 23, 0, 183, 255, 133, 192, 0]
    assert encode_brush(mask) == written and (decode_brush(written, (5, 3)) == mask).all()
    random = np.random.default_rng(0)
    for _ in range(20):
        mask = (random.random(random.integers(1, 40, 2)) > 0.6).astype(np.uint8)
        assert (decode_brush(encode_brush(mask), mask.shape[::-1]) == mask).all()
    for values in ([], [0] * 40, encode_brush(mask)[:-9], [300], None):
        with pytest.raises(DatasetError, match=r'^rle'):
            decode_brush(values, mask.shape[::-1])


def _coco(root, names, **annotation):
    """A file of one box for each image, and the images: grey of another value each."""
    for number, name in enumerate(names):
        (root / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 16, 3), 20 * number, np.uint8)).save(root / 'images' / name)
    images = [dict(id=i, file_name=name, width=16, height=12) for i, name in enumerate(names)]
    boxes = [dict(id=i, image_id=i, category_id=1, bbox=[i, 1, 5, 5], **annotation) for i in range(len(names))]
    content = dict(images=images, annotations=boxes, categories=[dict(id=1, name='x')])
    (root / 'annotations').mkdir()
    (root / 'annotations/a.json').write_text(json.dumps(content))
    return root


STRANGE = [
    'a+b.png',
    'a b.png',
    'a&b.png',
    'a%2Bb.png',
    'a#b.png',
    '1.png',
    '1.jpg',
    'images/2.png',
    'sub/images/3.png',
]


@pytest.mark.parametrize('to', ['coco', 'yolo', 'labelstudio', 'cvat'])
def test_every_image_keeps_its_objects_whatever_its_name(tmp_path, to):
    """Images are told apart by their pixels, for YOLO must rename some."""

    def corners(dataset):
        return {
            int(np.asarray(Image.open(image.path)).mean().round(-1)): image.annotations[0].box[0] for image in dataset
        }

    dataset = annotations.read(_coco(tmp_path / 'data', STRANGE))
    again = annotations.read(getattr(dataset, f'to_{to}')(tmp_path / 'out', copy=True))
    assert len(again) == len(STRANGE) and not again.missing
    assert {key: round(x) for key, x in corners(again).items()} == corners(dataset)


@pytest.mark.parametrize('to', ['yolo', 'labelstudio', 'cvat'])
def test_what_a_format_cannot_hold_is_reported(tmp_path, to):
    data = _coco(tmp_path / 'data', ['0.png', '1.png'])
    with edited(data / 'annotations/a.json') as content:
        content['annotations'][0]['iscrowd'] = 1
    dataset = annotations.read(data)
    getattr(dataset, f'to_{to}')(tmp_path / 'out')
    assert any('crowd' in what for _, what in dataset.warnings)
    if to == 'cvat':
        lost = 'CVAT cannot hold crowds and ignored objects: 1 in the dataset, written as objects'
        assert [what for _, what in dataset.warnings] == [lost]


def test_writing_leaves_the_dataset_as_it_is(tmp_path):
    dataset = annotations.read(_coco(tmp_path / 'data', ['0.png', '1.png', '2.png']))
    folder = dataset.to_yolo(tmp_path / 'out')
    assert {image.split for image in dataset} == {''} and (folder / 'labels/val').is_dir()
    assert not dataset.warnings and 'note: 1 of 3 images, chosen by a hash' in dataset.summary()  # nothing is wrong


def test_a_yolo_set_of_one_image_names_a_split_for_validation(tmp_path):
    folder = annotations.read(_coco(tmp_path / 'data', ['0.png'])).to_yolo(tmp_path / 'out')
    assert 'val: images/train' in (folder / 'data.yaml').read_text()


def test_boxes_and_lines_beside_keypoints_come_back_from_cvat(tmp_path):
    data = labelled.coco(tmp_path / 'data', 'keypoints')
    for path in data.glob('*.json'):
        with edited(path) as content:
            for entry in content['annotations']:
                entry.pop('segmentation', None)
            content['categories'][0]['skeleton'] = [[1, 2], [2, 3]]
    dataset = annotations.read(data)
    again = annotations.read(dataset.to_cvat(tmp_path / 'out'))
    assert _objects(again) == _objects(dataset)
    assert again.keypoints_of('cat')[1] == dataset.keypoints_of('cat')[1] == [(0, 1), (1, 2)]


@pytest.mark.parametrize('to', ['coco', 'yolo', 'labelstudio', 'cvat'])
def test_nothing_to_write_is_an_error(tmp_path, to):
    dataset = annotations.read(_coco(tmp_path / 'data', ['0.png']))
    for image in dataset:
        image.annotations = []
    with pytest.raises(ArgumentError, match=r'^to: '):
        getattr(dataset, f'to_{to}')(tmp_path / 'out')
    dataset = annotations.read(tmp_path / 'data')
    (tmp_path / 'data/images/0.png').write_bytes(b'')
    for image in dataset:
        image._size = None
    with pytest.raises(ArgumentError, match='no image can be read'):
        getattr(dataset, f'to_{to}')(tmp_path / 'out')


def test_classes_of_maps_are_chosen(tmp_path):
    for folder in ('images', 'masks'):
        (tmp_path / 'data' / folder).mkdir(parents=True)
        for number in range(2):
            pixels = np.repeat([[0, 1, 2]], 9, 0).repeat(3, 1).astype(np.uint8) + 50 * (folder == 'images')
            Image.fromarray(pixels).save(tmp_path / f'data/{folder}/{number}.png')
    unnamed = read_dataset(tmp_path / 'data', classes=['road', 'car', 'sky'], ignore_index=[2])
    again = annotations.read(unnamed.to_coco(tmp_path / 'a'))
    assert list(again.seg_map_classes.values()) == ['road', 'car']
    (tmp_path / 'data/classes.txt').write_text('road\ncar\nsky\n')
    chosen = annotations.read(tmp_path / 'data', classes=['car', 'sky'])
    assert list(annotations.read(chosen.to_coco(tmp_path / 'b')).seg_map_classes.values()) == ['car', 'sky']


# --- other tools read what is written ---


def _truth():
    boxes = [(labelled.NAMES[label], *box) for objects in labelled.OBJECTS for label, *box in objects]
    return sorted((name, *map(float, box)) for name, *box in boxes)


def _written(tmp_path, to):
    return getattr(annotations.read(labelled.coco(tmp_path / 'data')), f'to_{to}')(tmp_path / 'out', copy=True)


def test_pycocotools_reads_our_coco(tmp_path):
    from pycocotools.coco import COCO

    boxes = []
    for split in ('train', 'val'):
        coco = COCO(_written(tmp_path / split, 'coco') / f'annotations/instances_{split}.json')
        for entry in coco.loadAnns(coco.getAnnIds()):
            x, y, w, h = entry['bbox']
            mask = np.zeros(labelled.SIZE[::-1])
            mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
            assert (coco.annToMask(entry) == mask).all() and entry['area'] == mask.sum()
            boxes.append((coco.cats[entry['category_id']]['name'], x, y, w, h))
    assert sorted(boxes) == _truth()


@pytest.mark.parametrize('to', ['coco', 'yolo'])
def test_supervision_reads_what_we_write(tmp_path, to):
    dataset = pytest.importorskip('supervision').DetectionDataset
    folder, boxes = _written(tmp_path, to), []
    for split in ('train', 'val'):
        if to == 'coco':
            file = folder / f'annotations/instances_{split}.json'
            read = dataset.from_coco(str(folder / 'images'), str(file))
        else:
            folders = [str(folder / name / split) for name in ('images', 'labels')]
            read = dataset.from_yolo(*folders, data_yaml_path=str(folder / 'data.yaml'))
        for _, _, detections in read:
            for (x1, y1, x2, y2), label in zip(detections.xyxy.tolist(), detections.class_id):
                boxes.append((read.classes[label], *(round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1))))
    assert sorted(boxes) == _truth()


def test_ultralytics_reads_our_yolo(tmp_path):
    pytest.importorskip('ultralytics')
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    content = check_det_dataset(str(_written(tmp_path, 'yolo') / 'data.yaml'))
    boxes = []
    for split in ('train', 'val'):
        for labels in YOLODataset(img_path=content[split], data=content, task='segment', augment=False).labels:
            for label, (x, y, w, h) in zip(labels['cls'][:, 0], labels['bboxes'] * np.tile(labelled.SIZE, 2)):
                values = (float(round(value, 2)) for value in (x - w / 2, y - h / 2, w, h))
                boxes.append((content['names'][int(label)], *values))
    assert sorted(boxes) == _truth()


@pytest.mark.parametrize(('to', 'form'), [('coco', 'coco'), ('cvat', 'cvat')])
def test_datumaro_reads_what_we_write(tmp_path, to, form):
    datumaro = pytest.importorskip('datumaro')
    dataset = datumaro.Dataset.import_from(str(_written(tmp_path, to)), form)
    names = [category.name for category in dataset.categories()[datumaro.AnnotationType.label]]
    shapes = [annotation for item in dataset for annotation in item.annotations if annotation.type.name == 'polygon']
    boxes = [(names[shape.label], *(float(round(value, 2)) for value in shape.get_bbox())) for shape in shapes]
    assert sorted(boxes) == _truth()
