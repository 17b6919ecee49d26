"""What is too large, or endless, is refused before memory or time is spent on it; no published set is."""

import json
import os
import threading

import labelled
import numpy as np
import pytest
from drawn_sets import coco, draw, said, write
from PIL import Image

from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.find import read_datasets
from icconv_mm.app.annotations.images_on_disk import Files
from icconv_mm.datasets import limits
from icconv_mm.datasets.checks import DatasetError, check_coco_file
from icconv_mm.datasets.reading import open_regular_file, read_bytes, read_yaml
from icconv_mm.datasets.segmentations import segmentation_defect

pytest.importorskip('pycocotools')

# Bytes of the largest files that are published, rounded up; those of Objects365 v2 (25.4 million boxes) and of Open
# Images (14.6 million) as COCO by 250 for a box.
PUBLISHED = {
    'instances_train2017.json of COCO': 470_000_000,
    'lvis_v1_train.json': 1_200_000_000,
    'zhiyuan_objv2_train.json of Objects365 v2': 25_400_000 * 250,
    'Open Images V7 as COCO': 14_600_000 * 250,
    'ADE20K, instances as COCO': 400_000_000,
}


def test_no_published_set_is_refused(tmp_path):
    """Files of their sizes, which take no room on the disk, are opened; one above the limit is not."""
    path = tmp_path / 'a.json'
    for size in PUBLISHED.values():
        with open(path, 'wb') as file:
            file.truncate(size)
        with open_regular_file(path, limits.JSON_BYTES) as file:
            assert os.fstat(file.fileno()).st_size == size
    with open(path, 'wb') as file:
        file.truncate(limits.JSON_BYTES + 1)
    with pytest.raises(DatasetError, match=rf'a.json: has {limits.JSON_BYTES + 1} bytes, of which at most'):
        read_bytes(path, limits.JSON_BYTES)
    with pytest.raises(DatasetError, match=r'a.json: not a COCO annotation file: has \d+ bytes'):
        check_coco_file(path)


@pytest.mark.slow
def test_a_file_as_large_as_that_of_coco_is_read(tmp_path):
    """860,000 annotations of 500 bytes."""
    path, count = tmp_path / 'instances_train2017.json', 860_000
    draw(tmp_path, '0.jpg', size=(640, 480))
    polygon = [round(x, 2) for k in range(28) for x in (300 + 99 * np.cos(k / 4.5), 200 + 99 * np.sin(k / 4.5))]
    entry = dict(id=0, image_id=1, category_id=1, bbox=[200, 100, 200, 200], area=30000.5, iscrowd=0)
    entry = json.dumps(dict(entry, segmentation=[polygon]))
    with open(path, 'w') as file:
        images = json.dumps([dict(id=1, file_name='0.jpg', width=640, height=480)])
        file.write(f'{{"images": {images}, "categories": [{{"id": 1, "name": "x"}}], "annotations": [')
        file.write(',\n'.join(entry.replace('"id": 0', f'"id": {i}', 1) for i in range(count)))
        file.write(']}')
    assert path.stat().st_size > 430_000_000
    (dataset,) = read_datasets(path)
    assert len(next(iter(dataset.images.values())).annotations) == count and not dataset.warnings


@pytest.mark.parametrize(
    ('write_set', 'limit', 'problem'),
    [
        (labelled.voc, 'XML_BYTES', 'p0.xml: has .* bytes, of which at most 9 are read'),
        (labelled.cvat, 'XML_BYTES', 'annotations.xml: has .* bytes, of which'),
        (labelled.coco, 'JSON_BYTES', 'train.json: not a COCO annotation file: has .* bytes, of which'),
        (labelled.labelme, 'JSON_BYTES', 'p0.json: has .* bytes, of which'),
        (labelled.yolo, 'YAML_BYTES', 'data.yaml: has .* bytes, of which'),
        (labelled.yolo, 'TEXT_BYTES', 'p0.txt: has .* bytes, of which'),
        (labelled.deeplabcut, 'TEXT_BYTES', 'CollectedData_me.csv: has .* bytes, of which'),
        (labelled.masks, 'IMAGE_BYTES', 'p0/masks/0.png: has .* bytes, of which'),
        (labelled.voc, 'IMAGE_PIXELS', r'p0.png: cannot be read \(64 x 48 pixels, of which at most 9'),
    ],
)
def test_every_kind_of_file_has_its_limit(tmp_path, monkeypatch, write_set, limit, problem):
    root = write_set(tmp_path)
    monkeypatch.setattr(limits, limit, 9)
    location = root / 'data.yaml' if limit == 'YAML_BYTES' else root
    with pytest.raises(ValueError, match=f'(?s){problem}'):
        convert_dataset(read_datasets(location)[0], 'detection', tmp_path / 'out')


def test_aliases_of_yaml_are_counted_before_they_are_written_out(tmp_path, monkeypatch):
    path = tmp_path / 'data.yaml'
    path.write_text('a: &a [1, 2]\nb: &b [*a, *a]\nnames: [*b, *b]\n')
    monkeypatch.setattr(limits, 'YAML_NODES', 29)
    assert read_yaml(path)['names'] == [[[1, 2]] * 2] * 2
    monkeypatch.setattr(limits, 'YAML_NODES', 28)
    with pytest.raises(DatasetError, match=r'data.yaml: its aliases stand for 29 values, at most 28'):
        read_yaml(path)
    monkeypatch.undo()
    path.write_text('names: &a [x, *a]\ntrain: images\n')
    with pytest.raises(DatasetError, match=r'data.yaml: its aliases stand for'):
        read_datasets(path)


@pytest.mark.parametrize('shape', [[10**9, 3], [0, 3], [-1, 3], [True, 3], [1.5, 2], ['9', 3]])
def test_keypoints_of_yolo(tmp_path, shape):
    root = labelled.yolo(tmp_path, 'keypoints')
    (root / 'data.yaml').write_text((root / 'data.yaml').read_text().replace('- 3\n- 3\n', f'- {shape[0]!r}\n- 3\n'))
    with pytest.raises(DatasetError, match=r'data.yaml: kpt_shape is '):
        read_datasets(root / 'data.yaml')


def test_keypoints_of_every_format(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, 'KEYPOINTS', 2)
    for write_set in (labelled.deeplabcut, lambda root: labelled.coco(root, 'keypoints')):
        with pytest.raises(DatasetError, match='3 keypoints, of which at most 2 are read'):
            read_datasets(write_set(tmp_path / str(id(write_set))))


@pytest.mark.parametrize(
    ('mask', 'problem'),
    [
        (dict(left=0, top=0, width=10**8, height=10**8, rle=10**16), 'width and height are 100000000 x 100000000'),
        (dict(left=0, top=0, width=33, height=1, rle=33), 'width and height are 33 x 1, those of its image 16 x 12'),
        (dict(left=0, top=0, width=-2, height=-3, rle=6), 'width and height are -2 x -3'),
        (dict(left=0, top=0, width=2, height=3, rle='9, -3'), 'rle has 6 pixels, the mask 2 x 3'),
        (dict(left=0, top=0, width=2, height=3, rle=10**30), 'rle has 1000000000000000000'),
        (dict(left=0, top=0, width=2, height=3, rle='0, 6x'), "rle is '0, 6x', expected numbers of pixels"),
        (dict(left='', top=0, width=2, height=3, rle='0, 6'), "left is '', expected a number"),
        (dict(left=99, top=0, width=2, height=3, rle='0, 6'), 'the mask is empty, or outside the image'),
    ],
)
def test_masks_of_cvat_against_their_image(tmp_path, mask, problem):
    draw(tmp_path, '0.jpg')
    attributes = ' '.join(f'{key}="{value}"' for key, value in mask.items())
    good = '<box label="x" xtl="2" ytl="4" xbr="12" ybr="8"/>'
    image = f'<image name="0.jpg"><mask label="x" {attributes}/>{good}</image>'
    write(tmp_path, {'annotations.xml': f'<annotations>{image}</annotations>'})
    (dataset,) = read_datasets(tmp_path)
    assert f'image 0.jpg, mask 1: {problem}' in said(dataset) and len(list(dataset.annotations())) == 1


def test_polygons_against_their_image(monkeypatch):
    """Points are counted, and the pixels of the edge: pycocotools takes memory for each."""
    zigzag = [value for k in range(2000) for value in (k % 2 * 400, k / 10)]
    assert 'is longer than' in segmentation_defect([zigzag], 200, 400)
    comb = [value for k in range(400) for value in (k // 2, (k + 1) // 2 % 2 * 100)]  # through half of its pixels
    assert segmentation_defect([comb], 200, 400) is None
    around = [-400, -400, 800, -400, 800, 800, -400, 800]
    assert segmentation_defect([around], 200, 400) is None
    monkeypatch.setattr(limits, 'POLYGON_POINTS', 399)
    assert 'a polygon has 400 points, of which at most 399 are read' in segmentation_defect([comb], 200, 400)
    assert 'a polygon goes from 0 to 1000000' in segmentation_defect([[0, 0, 10**400, 1, 2, 2]], 200, 400)


# --- links, pipes, folders ---


def test_links_to_folders(tmp_path, monkeypatch):
    """A folder that holds itself twice is walked once; one that is shared, from each link to it."""
    draw(tmp_path / 'pool', 'images/0.jpg')
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'images').symlink_to(tmp_path / 'pool' / 'images')
        (tmp_path / 'pool' / name).symlink_to(tmp_path)
        (tmp_path / 'pool' / 'images' / name).symlink_to('..')
    folders = [path.relative_to(tmp_path).as_posix() for path in Files(tmp_path).by_folder]
    assert {'.', 'a', 'b', 'pool', 'pool/images', 'a/images', 'b/images'} <= set(folders) and len(folders) < 12
    chain = tmp_path / 'chain'
    for number in range(40):  # paths: two to the power of 40
        (chain / str(number)).mkdir(parents=True)
        for name in ('x', 'y'):
            (chain / str(number) / name).symlink_to(f'../{number + 1}')
    assert len(Files(chain).by_folder) < 41 * 41 * 2
    monkeypatch.setattr(limits, 'FOLDERS', 5)
    with pytest.raises(DatasetError, match='more than 5 folders'):
        Files(tmp_path)


def test_pipes_are_no_files(tmp_path):
    """Whoever opened them would wait for ever."""
    draw(tmp_path, '0.jpg', '1.jpg')
    coco(tmp_path / 'a.json', ['0.jpg', '1.jpg'])
    for name in ('b.json', 'c.xml', 'd.yaml', 'e.csv', 'train.txt', '2.jpg'):
        os.mkfifo(tmp_path / name)
    os.mkfifo(tmp_path / 'no_suffix')
    result = []
    thread = threading.Thread(target=lambda: result.append(read_datasets(tmp_path)), daemon=True)
    thread.start()
    thread.join(60)
    assert result and said(result[0][0]).count('is no file: left out') == 6
    with pytest.raises(ValueError, match='no such file'):
        read_datasets(tmp_path / 'b.json')
    (tmp_path / 'yolo' / 'labels').mkdir(parents=True)
    os.mkfifo(tmp_path / 'yolo' / '0.txt')
    draw(tmp_path / 'yolo', *(f'{i}.jpg' for i in range(3)))
    texts = {'data.yaml': 'names: [x]\ntrain: list.txt\n', '1.txt': '0 0.5 0.5 0.5 0.5\n'}
    write(tmp_path / 'yolo', texts | {'list.txt': '0.jpg\n1.jpg\n2.jpg\n../2.jpg\n'})
    (dataset,) = read_datasets(tmp_path / 'yolo' / 'data.yaml')
    assert '0.txt: is no regular file: left out' in said(dataset)
    pipe = dataset.images[tmp_path / '2.jpg']
    assert pipe.size == (0, 0) and 'cannot be read' in pipe.problem


def test_images_of_one_row(tmp_path):
    """They are read, and left out of the page if they cannot be drawn."""
    from icconv_mm.app.annotations.report import draw_page, summary

    for number in range(4):
        Image.fromarray(np.zeros((1, 20000, 3), np.uint8)).save(tmp_path / f'{number}.png')
    coco(tmp_path / 'a.json', [f'{i}.png' for i in range(4)], [[1, 0, 900, 1]] * 4, size=(20000, 1))
    (dataset,) = read_datasets(tmp_path)
    converted = convert_dataset(dataset, 'detection', tmp_path / 'out', thorough=True)
    assert '20000 x 1' in '\n'.join(summary(dataset, [converted]))
    draw_page(dataset, [converted], tmp_path / 'page.jpg')
