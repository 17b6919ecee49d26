"""Every format gives the boxes, masks and keypoints that are in it, to a pixel."""

import json
import os
from pathlib import Path

import cv2
import labelled
import numpy as np
import pytest
from drawn_sets import draw, edited, only
from PIL import Image

from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.dataset import assign_splits
from icconv_mm.app.annotations.find import all_tasks, choose_dataset, read_datasets
from icconv_mm.app.annotations.images_on_disk import located, split_of
from icconv_mm.app.annotations.segmentations import mask_of
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.errors import ArgumentError, MissingFileError

pytest.importorskip('pycocotools')


def _objects(dataset):
    """Class and whole box of each object, by the number in the image's name."""
    objects = {}
    for image in dataset.images.values():
        boxes = [
            (annotation.name, *(round(value) for value in annotation.box)) for annotation in image.annotations or ()
        ]
        objects[int(image.path.stem[-1])] = sorted(boxes)
    return objects


def _truth():
    return {
        number: sorted((labelled.NAMES[label], *box) for label, *box in annotations)
        for number, annotations in enumerate(labelled.OBJECTS)
    }


@pytest.mark.parametrize(
    ('write', 'kinds', 'tasks'),
    [
        (labelled.coco, ('polygons', 'runs', 'compressed'), ['detection', 'instance']),
        (labelled.coco, ('keypoints',), ['detection', 'pose']),
        (labelled.yolo, ('boxes',), ['detection']),
        (labelled.yolo, ('segmentations',), ['detection', 'instance']),
        (labelled.yolo, ('keypoints',), ['detection', 'pose']),
        (labelled.voc, (None,), ['detection']),
        (labelled.cvat, (None,), ['detection', 'instance']),
        (labelled.cvat_video, (None,), ['detection', 'instance']),
        (labelled.mit_labelme, (None,), ['detection', 'instance']),
        (labelled.labelme, (None,), ['detection', 'instance']),
        (labelled.label_studio, (None,), ['detection', 'instance']),
    ],
)
def test_boxes_of_every_format(tmp_path, write, kinds, tasks):
    """The boxes are those that were written, and pycocotools gets them, their areas and masks back from our file."""
    from pycocotools.coco import COCO

    for kind in kinds:
        root = write(tmp_path / str(kind), *([kind] if kind else []))
        dataset = only(root)
        assert dataset.tasks() == tasks and not dataset.warnings and not dataset.missing
        converted = convert_dataset(dataset, 'detection', tmp_path / 'out')
        assert _objects(dataset) == _truth() and converted.classes == list(labelled.NAMES)
        if write not in (labelled.labelme, labelled.mit_labelme):
            assert converted.splits == {'train': 2, 'val': 1}
        areas = {}
        for split in ('train', 'val'):
            coco = COCO(str(converted.files[split]))
            for annotation in coco.anns.values():
                name = coco.imgs[annotation['image_id']]['file_name']
                areas.setdefault(int(name[-5]), []).append(annotation['area'])
                if 'segmentation' in annotation:
                    assert abs(coco.annToMask(annotation).sum() - annotation['area']) <= 1
        assert {k: sorted(v) for k, v in areas.items()} == {
            number: sorted(w * h for _, _, _, w, h in annotations)
            for number, annotations in enumerate(labelled.OBJECTS)
        }


def test_a_mask_for_each_instance(tmp_path):
    dataset = only(labelled.masks(tmp_path))
    convert_dataset(dataset, 'instance', tmp_path / 'out')
    assert dataset.tasks() == ['detection', 'instance'] and dataset.classes == ['object'] and not dataset.warnings
    for image in dataset.images.values():
        number = int(image.path.stem[-1])
        for location, annotation in enumerate(image.annotations):
            assert (mask_of(annotation.segmentation, labelled.SIZE) == labelled.mask(number, location)).all()
            assert (
                tuple(annotation.box) == labelled.OBJECTS[number][location][1:]
                and annotation.area == mask_of(annotation.segmentation, labelled.SIZE).sum()
            )


def test_real_labels_are_those_of_pycocotools(real_samples, tmp_path):
    """Masks of PNGs and polygons of YOLO: areas as pycocotools counts them in the files, boxes to a pixel."""
    from pycocotools import mask as coco_mask

    expected = {'nuclei': [], 'coco128_yolo': []}
    for path in (real_samples / 'nuclei').rglob('masks/*.png'):
        pixels = np.asfortranarray(np.asarray(Image.open(path)) > 0, dtype=np.uint8)
        expected['nuclei'].append(coco_mask.encode(pixels))
    segmentations = real_samples / 'coco128_yolo' / 'instance_segmentation'
    for path in (segmentations / 'labels').rglob('*.txt'):
        (image,) = (real_samples / 'coco128_yolo' / 'images').rglob(f'{path.stem}.jpg')
        width, height = Image.open(image).size
        for line in path.read_text().splitlines():
            polygon = np.array(line.split()[1:], dtype=float).reshape(-1, 2) * (width, height)
            (encode_rle,) = coco_mask.frPyObjects([polygon.ravel().tolist()], height, width)
            expected['coco128_yolo'].append(encode_rle)
    for name, location in (('nuclei', real_samples / 'nuclei'), ('coco128_yolo', segmentations)):
        converted = convert_dataset(choose_dataset(read_datasets(location), 'instance'), 'instance', tmp_path / name)
        contents = [json.loads(converted.files[split].read_text()) for split in converted.splits]
        entries = [entry for content in contents for entry in content['annotations']]
        areas = sorted(entry['area'] for entry in entries)
        assert areas == sorted(coco_mask.area(rle) for rle in expected[name]) and len(areas) > 50
        boxes = np.array([entry['bbox'] for entry in entries])
        outer = np.array([coco_mask.toBbox(rle) for rle in expected[name]])
        assert np.abs(boxes[:, None] - outer).max(2).min(1).max() <= 1


@pytest.mark.parametrize('kind', ['keypoints of COCO', 'keypoints of YOLO', 'DeepLabCut'])
def test_keypoints_with_their_own_names(tmp_path, kind):
    if kind == 'DeepLabCut':
        dataset = only(labelled.deeplabcut(tmp_path))
        assert dataset.skeleton == [(0, 2)] and len(dataset.missing) == 1 and 'p3.png' in dataset.missing[0]
    elif 'YOLO' in kind:
        dataset = only(labelled.yolo(tmp_path, 'keypoints'))
        assert dataset.flip_indices == [1, 0, 2]
    else:
        dataset = only(labelled.coco(tmp_path, 'keypoints'))
        assert dataset.skeleton == [(0, 2), (1, 2)]
    assert len(dataset.keypoints) == 3 and (dataset.keypoints == list(labelled.POINTS) or 'YOLO' in kind)
    for image in dataset.images.values():
        number = int(image.path.stem[-1])
        keypoints = np.reshape(image.annotations[0].keypoints, (3, 3))
        expected = np.array(labelled.points(*labelled.OBJECTS[number][0][1:]))
        seen = keypoints[:, 2] > 0
        assert np.allclose(keypoints[seen, :2], expected[seen]) and seen.sum() == (
            2 if kind == 'DeepLabCut' and number == 1 else 3
        )


@pytest.mark.parametrize(
    ('kind', 'ignore_index', 'options'),
    [
        ('plain', 11, dict(ignore_index=[11])),
        ('plain', 255, {}),
        ('palette', 11, dict(ignore_index=[11])),
        ('colors', 11, {}),
    ],
)
def test_seg_maps(tmp_path, kind, ignore_index, options):
    """Whatever means nothing and however labels are written, networks get 0, 1, 2 and 255."""
    dataset = only(labelled.seg_maps(tmp_path / 'data', kind, ignore_index))
    names = None if kind == 'colors' else ['background', 'cat', 'dog']
    converted = convert_dataset(dataset, 'semantic', tmp_path / 'out', classes=names, **options)
    assert converted.classes == ['background', 'cat', 'dog'] and converted.splits == {'train': 2, 'val': 1}
    assert not dataset.warnings
    for image in json.loads(converted.files['train'].read_text())['images']:
        file = image.get('seg_map')
        path = tmp_path / 'out' / file if file else converted.root / image['seg_map_file_name']
        labels = np.asarray(Image.open(path))
        number = int(image['file_name'][-5])
        assert (labels[:4, :4] == 255).all()
        for label, x, y, w, h in labelled.OBJECTS[number]:
            part = labels[max(y, 4) : y + h, max(x, 4) : x + w]
            assert (part == label + 1).mean() > 0.9
    is_as_it_lay = ignore_index == 255
    assert ('maps are written anew' not in ' '.join(converted.notes)) == is_as_it_lay


def test_seg_maps_of_0_and_255_and_a_stray_value(tmp_path):
    labelled.seg_maps(tmp_path / 'data', ignore_index=0)
    maps = sorted((tmp_path / 'data').glob('*annot/*.png'))
    for path in maps:
        Image.fromarray(np.where(np.asarray(Image.open(path)) > 0, 255, 0).astype('u1')).save(path)
    converted = convert_dataset(only(tmp_path / 'data'), 'semantic', tmp_path / 'out')
    assert converted.classes == ['background', 'foreground'] and '255 is the object' in ' '.join(converted.notes)
    for path in maps:
        Image.fromarray((np.arange(48 * 64).reshape(48, 64) // 1024).astype('u1')).save(path)
    stray = np.asarray(Image.open(maps[0])).copy()
    stray[0, 0] = 77
    Image.fromarray(stray).save(maps[0])
    dataset = only(tmp_path / 'data')
    converted = convert_dataset(dataset, 'semantic', tmp_path / 'out')
    assert converted.classes == ['class_0', 'class_1', 'class_2']
    assert [(file, what) for file, what in dataset.warnings if file == str(maps[0]) and 'label 77' in what]


def test_folders_of_classes(tmp_path):
    converted = convert_dataset(only(labelled.folders(tmp_path / 'data')), 'classification', tmp_path / 'out')
    assert converted.classes == ['cat', 'dog'] and sum(converted.splits.values()) == 8 and converted.splits['val'] == 2
    first = converted.files['train'].read_text().splitlines()[0]
    name, label = first.rsplit(' ', 1)
    assert name.startswith(labelled.NAMES[int(label)])


def test_what_is_wrong_is_reported_by_file(tmp_path):
    """Boxes without area and outside, classes without a name, masks that cannot be, images that are not there."""
    root = labelled.yolo(tmp_path / 'data')
    labels = root / 'labels' / 'train' / 'p0.txt'
    labels.write_text(
        labels.read_text() + '2 0.5 0.5 0 0.1\n9 1.4 0.5 0.1 0.1\n5 0.5 0.5 0.1 0.1\nx\n2 0.95 0.5 0.3 0.2\n'
    )
    dataset = only(root)
    converted = convert_dataset(dataset, 'detection', tmp_path / 'out', thorough=True)
    said = '\n'.join(f'{file}: {what}' for file, what in dataset.warnings)
    for line, words in ((3, 'has 0 x'), (4, 'outside the image'), (5, 'class 5 has no name'), (6, 'no numbers')):
        assert f'{labels}: line {line}: ' in said and words in said
    assert 'line 7' in said and 'pixels beyond the image: cut' in said
    assert converted.counts == {'cat': 4, 'dog': 3}
    root = labelled.coco(tmp_path / 'coco', 'runs')
    with edited(root / 'train.json') as content:
        content['annotations'][0]['segmentation']['counts'][-1] += 5
        content['images'].append(dict(id=99, file_name='gone.png', width=4, height=4))
    dataset = only(root)
    assert len(dataset.missing) == 1 and 'gone.png' in dataset.missing[0]
    ((file, what),) = dataset.warnings
    assert 'train.json: annotations[0] of p0.png' in file and 'pixels' in what


def test_images_that_cannot_be_read_are_named(tmp_path):
    """They are left out: one that is none, and a truncated one, which all are looked at for."""
    from icconv_mm.app.annotations.report import draw_page, summary

    data = labelled.voc(tmp_path / 'data')
    images = data / 'JPEGImages'
    (images / 'p0.png').write_bytes(b'no image')
    quick = convert_dataset(dataset := only(data), 'detection', tmp_path / 'out')
    assert quick.splits == {'train': 1, 'val': 1}
    assert [Path(problem.file).name for problem in dataset.warnings] == ['p0.png']
    lines = '\n'.join(summary(dataset, [quick]))
    assert 'p0.png: cannot be read (' in lines and draw_page(dataset, [quick], tmp_path / 'page.jpg').is_file()
    (images / 'p1.png').write_bytes((images / 'p1.png').read_bytes()[:60])
    for thorough in (False, True):
        with pytest.raises(DatasetError, match='nothing is left of the split train') as error:
            convert_dataset(only(data), 'detection', tmp_path / 'out', thorough=thorough)
        assert all(f'p{n}.png: cannot be read (' in str(error.value) for n in (0, 1))


def test_jpeg_files_without_their_end_are_used_and_named(tmp_path):
    for number in range(12):
        draw(tmp_path / 'cat', f'{number}.jpg', size=(80, 60))
        draw(tmp_path / 'dog', f'{number}.jpg', size=(80, 60))
    for path in (tmp_path / 'cat').iterdir():
        path.write_bytes(path.read_bytes()[:-2])
    for thorough in (False, True):
        converted = convert_dataset(dataset := only(tmp_path), 'classification', tmp_path / 'out', thorough=thorough)
        assert sum(converted.splits.values()) == 24
        (warning,) = (what for _, what in dataset.warnings if 'lack their end' in what)
        assert warning.startswith('12 JPEG files lack their end, and are used as they are: ')
        assert warning.count('.jpg') == 10 and warning.endswith(', ...')


def test_the_page_is_written_where_the_path_is_not_utf_8(tmp_path, monkeypatch):
    """OpenCV would crash on the path."""
    from icconv_mm.app.annotations.report import draw_page

    def never(*given):
        raise AssertionError(given)

    monkeypatch.setattr(cv2, 'imwrite', never)
    converted = convert_dataset(dataset := only(labelled.voc(tmp_path / 'data')), 'detection', tmp_path / 'out')
    page = draw_page(dataset, [converted], tmp_path / os.fsdecode(b'caf\xe9') / 'page.jpg')
    assert cv2.imdecode(np.fromfile(page, np.uint8), cv2.IMREAD_COLOR).shape[1] == 3 * 480


def test_voc_boxes_without_area_and_difficult_ones(tmp_path):
    root = labelled.voc(tmp_path / 'data')
    path = root / 'Annotations' / 'p0.xml'
    box = '<bndbox><xmin>{0}</xmin><ymin>{0}</ymin><xmax>{1}</xmax><ymax>{1}</ymax></bndbox>'
    more = f'<object><name>cat</name>{box.format(9, 9)}</object>'
    more += f'<object><name>cat</name><difficult>1</difficult>{box.format(3, 9)}</object></annotation>'
    path.write_text(path.read_text().replace('</annotation>', more))
    dataset = only(root)
    assert [what for file, what in dataset.warnings if 'object 3' in file and 'has no area' in what]
    converted = convert_dataset(dataset, 'detection', tmp_path / 'out')
    entries = json.loads(converted.files['train'].read_text())['annotations']
    assert [entry['bbox'] for entry in entries if entry['iscrowd']] == [[2, 2, 7, 7]] and len(entries) == 5


def test_duplicates_across_splits(tmp_path):
    root = labelled.yolo(tmp_path / 'data')
    (root / 'images/val/p2.png').write_bytes((root / 'images/train/p0.png').read_bytes())
    dataset = only(root)
    convert_dataset(dataset, 'detection', tmp_path / 'out', thorough=True)
    assert any('the splits train and val share it' in what for _, what in dataset.warnings)


@pytest.mark.parametrize('turn', [5, 6, 7, 8])
def test_labels_in_the_frame_of_the_sensor_follow_exif(tmp_path, turn):
    """A mask drawn on the stored pixels lies where it belongs on the image as it is loaded."""
    import cv2

    root = labelled.coco(tmp_path / 'data')
    exif = Image.Exif()
    exif[0x0112] = turn
    path = root / 'images' / 'p0.jpg'
    Image.fromarray(labelled.image(0)).save(path, exif=exif, quality=95)
    with edited(root / 'train.json') as content:
        content['images'][0]['file_name'] = 'p0.jpg'
    dataset = only(root)
    assert any(f'orientation {turn}' in what for _, what in dataset.warnings)
    convert_dataset(dataset, 'instance', tmp_path / 'out')
    image = next(p for p in dataset.images.values() if p.path.name == 'p0.jpg')
    pixels = cv2.imread(str(path))
    assert image.size == pixels.shape[1::-1] == labelled.SIZE[::-1]
    red = next(annotation for annotation in image.annotations if annotation.name == 'cat')
    inside = mask_of(red.segmentation, image.size).astype(bool)
    assert inside.sum() == 20 * 16 and (pixels[inside, 2] > 180).mean() > 0.9
    x, y, w, h = red.box
    assert inside[round(y) : round(y + h), round(x) : round(x + w)].all()


def test_lists_with_paths_of_another_machine(tmp_path):
    root = labelled.seg_maps(tmp_path / 'data', ignore_index=255)
    for path in root.glob('train/*'):
        path.rename(root / 'val' / path.name)
    for path in root.glob('trainannot/*'):
        path.rename(root / 'valannot' / path.name)
    (root / 'train.txt').write_text('/home/you/set/val/p0.png /home/you/set/valannot/p0.png\n')
    (root / 'val.txt').write_text('C:\\set\\val\\p1.png\n/x/p2.png\n')
    dataset = only(root)
    assert {p.path.name: p.split for p in dataset.images.values()} == {
        'p0.png': 'train',
        'p1.png': 'val',
        'p2.png': 'val',
    }


def test_links_that_a_checkout_left_as_text(tmp_path):
    """Images of YOLO behind such a link; their labels are found beside the link."""
    root = labelled.yolo(tmp_path / 'all' / 'boxes')
    (root / 'images').rename(tmp_path / 'all' / 'photos')
    (root / 'images').write_text('../photos')
    assert _objects(only(root)) == _truth()


def test_choice_among_several_sets(tmp_path):
    """What has the fewest other labels; the same folder may hold boxes, masks and maps of the same images."""
    labelled.yolo(tmp_path / 'boxes')
    labelled.coco(tmp_path / 'masks')
    labelled.seg_maps(tmp_path / 'maps', ignore_index=255)
    datasets = read_datasets(tmp_path)
    assert (
        choose_dataset(datasets, 'detection').format == 'YOLO' and choose_dataset(datasets, 'instance').format == 'COCO'
    )
    assert all_tasks(datasets) == ['instance', 'semantic']
    with pytest.raises(ArgumentError, match="task: no annotations for 'pose'"):
        choose_dataset(datasets, 'pose')
    labelled.yolo(tmp_path / 'more')
    with pytest.raises(ArgumentError, match="2 datasets have annotations for 'detection'"):
        choose_dataset(read_datasets(tmp_path), 'detection')


def test_locations_that_hold_nothing(tmp_path):
    with pytest.raises(MissingFileError, match='nowhere'):
        read_datasets(tmp_path / 'nowhere')
    (tmp_path / 'a.txt').write_text('nothing')
    with pytest.raises(DatasetError, match=r'no annotations in a supported format: COCO.*folders of classes$'):
        read_datasets(tmp_path)
    images = labelled.voc(tmp_path / 'data') / 'JPEGImages'
    count = len(list(images.iterdir()))
    with pytest.raises(DatasetError, match=f'there are {count} images: give a folder that holds their annotations'):
        read_datasets(images)


@pytest.mark.parametrize(
    ('name', 'text', 'problem'),
    [
        ('x.json', '{"images": [], "annotations": 3, "categories": []}', "x.json: .* no list 'annotations'"),
        ('x.json', '[1, 2', 'x.json: .* not JSON'),
        ('x.json', '{"shapes": 5, "imagePath": 7}', 'x.json: "shapes" is 5, expected a list'),
        ('data.yaml', 'names: {0: a', 'data.yaml: not YAML'),
        ('data.yaml', 'names: 5\ntrain: images', 'data.yaml: names is 5, expected a list'),
        ('data.yaml', 'names: [a]\ntrain: gone', 'data.yaml: none of the images'),
        ('data.yaml', 'names: [a]\ntrain: .\nkpt_shape: 3', r'data.yaml: kpt_shape is 3, expected'),
        ('a.csv', 'scorer,me\nbodyparts,x\n', 'a.csv: not DeepLabCut'),
        (
            'a.xml',
            '<annotations><image name="p0.png"><box label="a" xtl="?"/></image></annotations>',
            "a.xml: image p0.png, box 1: xtl is '.', expected a number",
        ),
    ],
)
def test_broken_files_are_messages(tmp_path, name, text, problem):
    labelled.coco(tmp_path / 'beside')
    (tmp_path / 'beside' / 'images').rename(tmp_path / 'images')
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=problem):
        read_datasets(tmp_path / name)


def test_splits_by_name_and_by_hash(tmp_path):
    assert split_of('annotations/instances_train2017.json') == 'train' and split_of('valid') == 'val'
    assert split_of('trains') == split_of('trainannot') == '' and split_of('train', 'val/x') == 'val'
    dataset = only(labelled.masks(tmp_path))
    images = list(dataset.images.values())
    assert 'held out' in assign_splits(images)
    first = {p.path: p.split for p in images}
    again = list(only(tmp_path).images.values())
    assign_splits(again)
    assert sorted(first.values()) == ['train', 'train', 'val'] and {p.path: p.split for p in again} == first


def test_located(tmp_path):
    (tmp_path / 'train' / 'images').mkdir(parents=True)
    for text in (
        'train/images',
        './train/images',
        '../train/images',
        '/content/train/images',
        'C:\\set\\train\\images',
    ):
        assert located(text, [tmp_path]) == tmp_path / 'train' / 'images', text
    assert located('test/none', [tmp_path]) is None
