"""A damaged file, entry or name is left out by its name, and harms nothing beside it; too many refuse the set."""

import json
import os
import sys
from pathlib import Path

import labelled
import numpy as np
import pytest
from drawn_sets import coco, draw, edited, entries_of, only, said, voc, write
from PIL import Image

from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.find import read_datasets
from icconv_mm.app.annotations.report import write_warnings
from icconv_mm.app.annotations.segmentations import mask_of
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.datasets.image_files import IMAGE_FORMATS

pytest.importorskip('pycocotools')


def _edit(path, change):
    """Change the content of a JSON file."""
    with edited(path) as content:
        change(content)


# --- areas and boxes that cannot be ---


@pytest.mark.parametrize('area', [0, -4, float('nan'), float('inf'), 64 * 48 + 1, '9', [9], 10**400, True])
def test_areas_that_cannot_be_are_measured(tmp_path, area):
    """Of the mask where there is one, else of the box; and it is reported once."""
    for kind in ('polygons', 'keypoints'):
        root = labelled.coco(tmp_path / kind, kind)
        for split in ('train', 'val'):
            _edit(root / f'{split}.json', lambda content: [entry.update(area=area) for entry in content['annotations']])
        dataset = only(root)
        converted = convert_dataset(dataset, 'detection', tmp_path / 'out')
        right = sorted(w * h for annotations in labelled.OBJECTS for _, _, _, w, h in annotations)
        if area is not True:  # which Python takes for 1
            assert sorted(entry['area'] for entry in entries_of(converted)) == right
            assert said(dataset).count('"area" is') == 2 and 'as of 3 others in this file' in said(dataset)


def test_poses_are_evaluated_by_the_area_that_was_measured(tmp_path):
    """With the area 0 that the file has, pycocotools finds no pose right."""
    root = labelled.coco(tmp_path, 'keypoints')
    for split in ('train', 'val'):
        _edit(root / f'{split}.json', lambda content: [entry.update(area=0) for entry in content['annotations']])
    converted = convert_dataset(only(root), 'pose', tmp_path / 'out')
    assert all(entry['area'] == pytest.approx(0.53 * np.prod(entry['bbox'][2:])) for entry in entries_of(converted))


@pytest.mark.parametrize('kind', ['keypoints', 'polygons'])
def test_boxes_without_area_are_measured(tmp_path, kind):
    root = labelled.coco(tmp_path, kind)
    _edit(root / 'train.json', lambda content: content['annotations'][0].update(bbox=[0, 0, 0, 0]))
    dataset = only(root)
    converted = convert_dataset(dataset, 'detection', tmp_path / 'out')
    entry = next(entry for entry in entries_of(converted) if entry['category_id'] == 1)
    x, y, w, h = labelled.OBJECTS[0][0][1:]
    left, top, width, height = entry['bbox']
    assert x - 2 <= left <= x + 2 and y - 2 <= top <= y + 2 and 0 <= w - width < 4 and 0 <= h - height < 6
    assert f'that of its {"mask" if kind == "polygons" else "keypoints"} is taken' in said(dataset)


# --- what looks like annotations, and cannot be read ---


def test_a_truncated_file_is_refused_by_name(tmp_path):
    """A split, or a whole set, is in it: it is not passed over, whatever its first 4096 bytes are."""
    for name in ('a', 'b'):
        draw(tmp_path, f'{name}/0.jpg', f'{name}/1.jpg')
    coco(tmp_path / 'train.json', ['a/0.jpg', 'a/1.jpg'])
    text = (tmp_path / 'train.json').read_text()
    (tmp_path / 'train.json').write_text('{"info": {"text": "' + 'x' * 5000 + f'"}}, {text[1:-40]}')
    with pytest.raises(DatasetError, match=r'train\.json: not a COCO annotation file: not JSON'):
        read_datasets(tmp_path)
    segments = '"annotations": [{"file_name": "0.png", "segments_info": [{"id": 1'
    (tmp_path / 'train.json').write_text('{"info": "' + 'x' * 5000 + f'", {segments}')
    with pytest.raises(DatasetError, match=r'train\.json: not a COCO'):
        read_datasets(tmp_path)
    (tmp_path / 'train.json').write_text('{"info": "' + 'x' * 5000 + '", "images": [{')
    with pytest.raises(DatasetError, match=r'train\.json: looks like annotations, and cannot be used'):
        read_datasets(tmp_path)  # and its folders are no classes
    (tmp_path / 'train.json').write_text('{"compilerOptions": {},}')
    assert only(tmp_path).format == 'folders of classes'


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-32'])
def test_annotations_in_other_encodings_of_unicode(tmp_path, encoding):
    for write_set in (labelled.labelme, labelled.coco, labelled.yolo):
        root = write_set(tmp_path / write_set.__name__)
        tasks = only(root).tasks()
        for path in [*root.rglob('*.json'), *root.rglob('*.yaml'), *root.rglob('*.txt')]:
            if encoding != 'utf-32' or path.suffix == '.json':
                path.write_bytes(path.read_text().encode(encoding))
        dataset = only(root)
        assert dataset.tasks() == tasks and not dataset.warnings and len(list(dataset.annotations())) == 6


def test_files_without_a_list_are_reported(tmp_path):
    labelled.yolo(tmp_path)
    draw(tmp_path, '0.jpg')
    coco(tmp_path / 'a.json', ['0.jpg'])
    _edit(tmp_path / 'a.json', lambda content: content.pop('categories'))
    dataset = only(tmp_path)
    assert f"{tmp_path / 'a.json'}: has no list 'categories', as COCO has: not read" in said(dataset)


# --- sizes ---


def test_entries_of_one_image_and_another_size(tmp_path):
    """The masks of the entry that has not the size of the image are not written."""
    root = labelled.coco(tmp_path, 'runs')

    def double(content):
        image = content['images'][0]
        content['images'].append(dict(image, id=99, width=6400, height=4800))
        mask = dict(size=[4800, 6400], counts=[0, 4800 * 6400])
        content['annotations'].append(dict(content['annotations'][0], id=99, image_id=99, segmentation=mask))

    _edit(root / 'train.json', double)
    dataset = only(root)
    converted = convert_dataset(dataset, 'instance', tmp_path / 'out')
    sizes = [tuple(entry['segmentation']['size']) for entry in entries_of(converted)]
    assert sizes == [labelled.SIZE[::-1]] * 6
    assert 'train.json: images[2]: "width" and "height" are 6400 x 4800, but' in said(dataset)


def test_an_image_that_is_listed_twice_is_reported(tmp_path):
    draw(tmp_path, '0.jpg')
    coco(tmp_path / 'a.json', ['0.jpg', '0.jpg'])
    assert '0.jpg: is listed again in a.json, with the same objects: the first ones are taken' in said(only(tmp_path))


def _panoptic(root, count=5):
    """Images with a panoptic map each: one object and what is around it."""
    draw(root, *(f'{i}.jpg' for i in range(count)))
    (root / 'p').mkdir()
    annotations, images = [], []
    for i in range(count):
        colors = np.zeros((12, 16, 3), np.uint8)
        colors[..., 0] = 1
        colors[2:8, 2:9, 0] = 2
        Image.fromarray(colors).save(root / 'p' / f'{i}.png')
        segments = [dict(id=1, category_id=1, iscrowd=0), dict(id=2, category_id=2, iscrowd=0)]
        annotations.append(dict(image_id=i, file_name=f'{i}.png', segments_info=segments))
        images.append(dict(id=i, file_name=f'{i}.jpg', width=16, height=12))
    categories = [dict(id=1, name='sky', isthing=0), dict(id=2, name='cat', isthing=1)]
    text = json.dumps(dict(images=images, annotations=annotations, categories=categories))
    (root / 'p.json').write_text(text)
    return root


def test_panoptic_maps_of_another_size_are_left_out(tmp_path):
    _panoptic(tmp_path)
    assert len(list(only(tmp_path).annotations())) == 5
    Image.fromarray(np.full((24, 32, 3), 2, np.uint8)).save(tmp_path / 'p' / '0.png')
    _edit(tmp_path / 'p.json', lambda content: content['images'][1].update(width=999))
    dataset = only(tmp_path)
    assert len(list(dataset.annotations())) == 3 and len([p for p in dataset.images.values() if p.seg_map]) == 3
    assert 'p.json: annotations[0] of 0.png: ' in said(dataset)
    assert 'has 32 x 24 pixels, its image 16 x 12' in said(dataset)
    assert 'p.json: annotations[1] of 1.png: "width" and "height" are 999 x 12, its image has 16 x 12' in said(dataset)


@pytest.mark.parametrize('number', [-1, 1 << 24, 10**30])
def test_segments_whose_id_is_no_colour_are_left_out(tmp_path, number):
    """The others of their image stay."""
    _panoptic(tmp_path)
    extra = dict(id=number, category_id=2, iscrowd=0)
    _edit(tmp_path / 'p.json', lambda content: content['annotations'][0]['segments_info'].append(extra))
    dataset = only(tmp_path)
    assert len(list(dataset.annotations())) == 5 and len([p for p in dataset.images.values() if p.seg_map]) == 5
    ((file, what),) = dataset.warnings
    assert 'annotations[0] of 0.png' in file and what == f'segments_info[2] has the id {number}, no colour: left out'


def test_masks_of_another_size_are_not_decoded(tmp_path, monkeypatch):
    """Of instances; the header says it."""
    import cv2

    root = labelled.masks(tmp_path)
    Image.fromarray(np.full((500, 400), 255, np.uint8)).save(root / 'p0' / 'masks' / '0.png')
    Image.fromarray(np.full((30, 40), 255, np.uint8)).save(root / 'p0' / 'masks' / '1.png', 'BMP')
    decode, sizes = cv2.imdecode, []
    only(root)  # reads once what OpenCV loads
    monkeypatch.setattr(cv2, 'imdecode', lambda *args: sizes.append(decode(*args).shape) or decode(*args))
    dataset = only(root)
    assert set(sizes) == {labelled.SIZE[::-1]} and 'is 400 x 500, its image 64 x 48: left out' in said(dataset)
    assert 'has 40 x 30 pixels, its image 64 x 48: left out' in said(dataset)


# --- one file, one boundary ---


@pytest.mark.parametrize(
    ('write_set', 'name', 'damage', 'problem'),
    [
        (
            labelled.voc,
            'Annotations/p0.xml',
            lambda p: p.write_text(p.read_text().replace('<width>64<', '<width>64px<')),
            "p0.xml: size/width is '64px', expected a number: left out",
        ),
        (labelled.voc, 'Annotations/p0.xml', lambda p: p.write_bytes(b''), 'p0.xml: not XML'),
        (labelled.voc, 'Annotations/p0.xml', lambda p: p.write_bytes(b'<a\xff'), 'p0.xml: not XML'),
        (
            labelled.voc,
            'Annotations/p0.xml',
            lambda p: p.write_text(p.read_text().replace('<annotation>', '<?xml version="1.0" encoding="x?"?><a>')),
            'p0.xml: not XML',
        ),
        (labelled.labelme, 'p0.json', lambda p: p.write_bytes(b'{"shapes": [\xe9]}'), 'p0.json: not JSON'),
        (labelled.labelme, 'p0.json', lambda p: p.write_text('{"shapes": ' + '[' * 9999), 'p0.json: not JSON'),
        (labelled.labelme, 'p0.json', lambda p: p.write_text('{"shapes": [], "imagePath": [1]}'), '"imagePath" is [1]'),
        (
            labelled.yolo,
            'labels/train/p0.txt',
            lambda p: (p.unlink(), p.mkdir()),
            'p0.txt: cannot be read (Is a directory)',
        ),
        (labelled.yolo, 'labels/train/p0.txt', lambda p: (p.unlink(), p.symlink_to('gone')), 'cannot be read'),
        (
            labelled.masks,
            'p0/masks/0.png',
            lambda p: p.write_bytes(p.read_bytes()[:40]),
            '0.png: no segmentation map can be',
        ),
        (labelled.masks, 'p0/masks/0.png', lambda p: p.write_bytes(b''), '0.png: no segmentation map can be read'),
    ],
)
def test_a_damaged_file_is_left_out_alone(tmp_path, write_set, name, damage, problem):
    """By its name and its field, and not in the words of Python; what is beside it is read."""
    root = write_set(tmp_path)
    before = len(list(only(root).annotations()))
    damage(root / name)
    dataset = only(root)
    assert problem in said(dataset) and before - 2 <= len(list(dataset.annotations())) < before
    assert not any(word in said(dataset) for word in ('NoneType', 'object has no', 'unpack', 'traceback'))


@pytest.mark.parametrize(
    ('name', 'text', 'problem'),
    [
        ('a.csv', 'scorer,me,me\nbodyparts,x,x\ncoords,x,y\n"0.jpg' + 'x' * 200_000 + '",1,2\n', 'field larger than'),
        ('a.csv', 'scorer,me\nbodyparts,x\n', 'not DeepLabCut: no rows "bodyparts" and "coords"'),
        ('a.csv', 'scorer,me\nbodyparts,x\ncoords,z\n', 'not DeepLabCut: no column x or y'),
    ],
)
def test_damaged_tables(tmp_path, name, text, problem):
    labelled.deeplabcut(tmp_path)
    write(tmp_path, {name: text})
    dataset = only(tmp_path)
    assert len(list(dataset.annotations())) == 3 and f'{name}: ' in said(dataset) and problem in said(dataset)


def test_links_to_nothing_and_names_that_are_not_utf_8(tmp_path):
    """As DVC and git-annex leave them where nothing was fetched."""
    labelled.voc(tmp_path)
    (tmp_path / 'gone.json').symlink_to('.git/annex/objects/a')
    (tmp_path / 'JPEGImages' / 'p9.png').symlink_to('.git/annex/objects/b')
    (tmp_path / 'Annotations' / 'p9.xml').symlink_to('.git/annex/objects/c')
    if sys.platform == 'linux':
        Path(os.fsdecode(os.fsencode(tmp_path) + b'/JPEGImages/\xe9.png')).write_bytes(b'')
    dataset = only(tmp_path)
    assert len(list(dataset.annotations())) == 6
    assert said(dataset).count('leads to no file (of DVC or git-annex, fetch it): left out') == 3
    assert sys.platform != 'linux' or '\\xe9.png: its name is not UTF-8: left out' in said(dataset)
    said(dataset).encode()


def test_names_that_are_too_long(tmp_path):
    draw(tmp_path, '0.jpg')
    coco(tmp_path / 'a.json', ['0.jpg', 'x' * 5000 + '/y.jpg', 'a\0b.jpg'])
    dataset = only(tmp_path)
    assert len(dataset.images) == 1 and len(dataset.missing) == 2


@pytest.mark.parametrize(
    ('change', 'problem', 'count'),
    [
        (lambda c: c['annotations'][0].update(bbox=[1, 2]), "annotations[0]: 'bbox' is [1, 2]", 5),
        (lambda c: c['annotations'][0].pop('category_id'), "annotations[0]: no field 'category_id'", 5),
        (lambda c: c['annotations'][0].update(image_id=12345), 'annotations[0]: image_id 12345 is not in the file', 5),
        (lambda c: c['annotations'][0].update(segmentation=[[1, 'x']]), 'annotations[0] of p0.png: mask: a polygon', 6),
        (lambda c: c['annotations'].__setitem__(0, 5), 'annotations[0]: expected an object, found int', 5),
        (lambda c: c['annotations'][1].update(id=1), '1 annotations have the "id" of another: all are read', 6),
        (lambda c: c['images'][0].update(width='64px'), 'images[0]: "width" is \'64px\', expected a number', 4),
        (lambda c: c['images'][0].pop('file_name'), "images[0]: no field 'file_name'", 4),
        (lambda c: c['images'][1].update(id=c['images'][0]['id']), 'images[1]: has the id 7 of images[0]', 4),
        (lambda c: c['categories'][0].update(name=' '), 'categories[0]: has a blank name', 4),
    ],
)
def test_a_damaged_entry_of_coco_is_left_out_alone(tmp_path, change, problem, count):
    root = labelled.coco(tmp_path)
    _edit(root / 'train.json', change)
    dataset = only(root)
    assert problem in said(dataset) and len(list(dataset.annotations())) == count


# --- how much may be left out ---


def _many(root, count, damaged):
    draw(root, *(f'{i}.jpg' for i in range(count)))
    voc(root, *map(str, range(count)))
    for i in range(damaged):
        (root / f'{i}.xml').write_text('<annotation>')
    return root


def test_a_tenth_and_three_may_be_left_out(tmp_path):
    assert len(only(_many(tmp_path / 'three', 10, 3)).images) == 7
    assert len(only(_many(tmp_path / 'tenth', 40, 4)).images) == 36
    with pytest.raises(DatasetError, match='5 of 40 images lost annotations, more than a tenth') as error:
        read_datasets(_many(tmp_path / 'more', 40, 5))
    assert all(f'{i}.xml: not XML' in str(error.value) for i in range(5))


def test_objects_that_cannot_be_count_as_well(tmp_path):
    """Boxes in shares of the image, in a format of pixels."""
    names = [f'{i}.jpg' for i in range(10)]
    draw(tmp_path, *names)
    coco(tmp_path / 'a.json', names, [[900, 900, 5, 5]] * 4 + [[1, 1, 5, 5]] * 6)
    dataset = only(tmp_path)
    with pytest.raises(
        DatasetError, match=r'(?s)4 of 10 images lost.*annotations\[0\] of 0.jpg: x: the box is outside'
    ):
        convert_dataset(dataset, 'detection', tmp_path / 'out')


def test_a_split_of_which_nothing_is_left_is_refused_by_name(tmp_path):
    root = labelled.voc(tmp_path)
    (root / 'Annotations' / 'p2.xml').write_text('<annotation>')
    with pytest.raises(DatasetError, match=r'nothing is left of the split val:\n.*p2.xml: not XML'):
        read_datasets(root)


def test_strict_refuses_at_the_first(tmp_path):
    _many(tmp_path / 'a', 10, 1)
    assert len(read_datasets(tmp_path / 'a')) == 1
    with pytest.raises(DatasetError, match=r'strict: .*0.xml: not XML'):
        read_datasets(tmp_path / 'a', strict=True)
    draw(tmp_path / 'b', '0.jpg', '1.jpg')
    coco(tmp_path / 'b' / 'a.json', ['0.jpg', '1.jpg', 'gone.jpg'])
    with pytest.raises(DatasetError, match=r'strict: .*gone.jpg: the image is not there'):
        read_datasets(tmp_path / 'b', strict=True)
    coco(tmp_path / 'b' / 'a.json', ['0.jpg', '1.jpg'], [[1, 1, 5, 5], [900, 900, 5, 5]])
    (dataset,) = read_datasets(tmp_path / 'b', strict=True)
    with pytest.raises(DatasetError, match=r'strict: .*outside the image'):
        convert_dataset(dataset, 'detection', tmp_path / 'out')


def test_warnings_as_json(tmp_path):
    dataset = only(_many(tmp_path, 10, 1))
    dataset.missing.append('a.json: gone.jpg')
    write_warnings(tmp_path / 'warnings.json', [dataset])
    first, second = json.loads((tmp_path / 'warnings.json').read_text())
    assert first['file'] == str(tmp_path / '0.xml') and first['left_out'] and 'not XML' in first['problem']
    assert second == dict(file='a.json: gone.jpg', problem='the image is not there', left_out=True)


# --- what is not ours ---


@pytest.mark.parametrize(
    'text',
    [
        'a: 1\n---\nb: 2\n',
        'kind: Deployment\nspec:\n  names: {{ .Values.names }}\n  containers: [{ }\n',
        'base: &base {x: 1}\nall: [*base, *gone]\n',
        'names: [a\n',
        '\t- x',
    ],
)
def test_a_yaml_of_another_program_is_not_read(tmp_path, text):
    labelled.coco(tmp_path)
    write(tmp_path, {'chart.yaml': text})
    dataset = only(tmp_path)
    assert dataset.format == 'COCO' and not dataset.warnings


def test_a_damaged_yaml_that_looks_like_a_sets_is_reported(tmp_path):
    labelled.coco(tmp_path / 'a')
    write(tmp_path / 'a', {'data.yaml': 'names: [a\ntrain: images/train\n'})
    assert 'data.yaml: not YAML' in said(only(tmp_path / 'a'))
    labelled.yolo(tmp_path / 'b')
    write(tmp_path / 'b', {'data.yaml': 'names: [a\ntrain: images/train\n'})
    with pytest.raises(DatasetError, match=r'none of its annotations can be used, the first: .*data.yaml: not YAML'):
        read_datasets(tmp_path / 'b')  # and its folders of splits are no classes


# --- names, borders, formats of images ---


def test_blank_names_are_no_classes(tmp_path):
    root = labelled.yolo(tmp_path / 'yolo')
    text = (root / 'data.yaml').read_text()
    (root / 'data.yaml').write_text(text.replace('2: cat', "2: cat\n  4: '  '\n  5: null"))
    dataset = only(root)
    assert dataset.classes == ['cat', 'dog'] and 'names[4] is' in said(dataset) and 'names[5] is None' in said(dataset)
    root = labelled.seg_maps(tmp_path / 'maps', 'colors')
    (root / 'class_dict.csv').write_text((root / 'class_dict.csv').read_text().replace('dog', ' '))
    converted = convert_dataset(dataset := only(root), 'semantic', tmp_path / 'out')
    assert converted.classes == ['background', 'cat']
    assert 'value 2 of segmentation maps has a blank name' in said(dataset)


@pytest.mark.parametrize(('left', 'top'), [(-3, 0), (0, -4), (-3, -4), (12, 9), (4, 2)])
def test_masks_of_cvat_are_cut_at_the_border(tmp_path, left, top):
    draw(tmp_path, '0.jpg')
    values = (np.arange(48).reshape(6, 8) % 3 > 0).astype(int)
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[-1], values.ravel(), [-1]])))).tolist()
    mask = f'<mask label="x" rle="{", ".join(map(str, runs))}" left="{left}" top="{top}" width="8" height="6"/>'
    write(tmp_path, {'annotations.xml': f'<annotations><image name="0.jpg">{mask}</image></annotations>'})
    ((_, annotation),) = only(tmp_path).annotations()
    whole = np.zeros((40, 40), int)
    whole[10 + top : 16 + top, 10 + left : 18 + left] = values
    assert (mask_of(annotation.segmentation, (16, 12)) == whole[10:22, 10:26]).all()


def test_formats_of_images_are_named(tmp_path):
    """PostScript is none of them, whatever the file is called; nobody opens an image without them."""
    labelled.voc(tmp_path)
    (tmp_path / 'JPEGImages' / 'p0.png').write_bytes(
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n'
    )
    dataset = only(tmp_path)
    convert_dataset(dataset, 'detection', tmp_path / 'out')
    assert 'p0.png: cannot be read (cannot identify image file' in said(dataset) and 'EPS' not in IMAGE_FORMATS
    package = Path(__file__).parents[3] / 'icconv_mm'
    opened = [line for path in package.rglob('*.py') for line in path.read_text().splitlines() if 'Image.open(' in line]
    assert opened and all('formats=' in line for line in opened)
