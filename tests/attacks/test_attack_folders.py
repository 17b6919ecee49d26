"""Folders of annotations that are wrong in their structure: read right, left out with a warning, or refused by name.

What is read without a warning has as many objects as an independent reader finds; what is written, pycocotools reads.
"""

import csv
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import labelled
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.find import read_datasets
from icconv_mm.errors import UserError

# of names, encodings and forms that an independent reader does not know
NOT_READ_BY_OTHERS = (OSError, ValueError, LookupError, TypeError, AttributeError)
ODD = [None, True, '', ' ', 'x', '1', -1, 0, 0.5, 1e6, 1e30, float('nan'), float('inf'), 2**63, [], {}, [[1]], [None]]
WORDS = ['', ' ', 'x', '1', '-1', '0.5', '64px', '1e30', 'nan', 'true', ',', ';', '\x00', 'é']


def panoptic(root: Path) -> Path:
    """``train.json`` with ``segments_info``, and a PNG of segments for each image."""
    labelled.coco(root)
    for path in (root / 'train.json', root / 'val.json'):
        path.unlink()
    images, annotations = [], []
    (root / 'panoptic').mkdir()
    for number, objects in enumerate(labelled.OBJECTS):
        ids = np.ones(labelled.SIZE[::-1], dtype=np.uint8)
        for i, (_, x, y, w, h) in enumerate(objects):
            ids[y : y + h, x : x + w] = 2 + i
        Image.fromarray(np.dstack([ids, 0 * ids, 0 * ids])).save(root / 'panoptic' / f'p{number}.png')
        images.append(dict(id=number, file_name=f'p{number}.png', width=labelled.SIZE[0], height=labelled.SIZE[1]))
        segments = [dict(id=1, category_id=1, iscrowd=0)]
        segments += [dict(id=2 + i, category_id=2 + label, iscrowd=0) for i, (label, *_) in enumerate(objects)]
        annotations.append(dict(image_id=number, file_name=f'p{number}.png', segments_info=segments))
    names = ('grass', *labelled.NAMES)
    categories = [dict(id=i, name=name, isthing=int(i > 1)) for i, name in enumerate(names, 1)]
    (root / 'panoptic.json').write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return root


def mpii(root: Path) -> Path:
    labelled.coco(root)
    for path in (root / 'train.json', root / 'val.json'):
        path.unlink()
    people = []
    for number in range(3):
        joints = [[4 + 3 * k, 10 + k] for k in range(16)]
        people.append(dict(image=f'p{number}.png', joints=joints, joints_vis=[1] * 16, center=[30, 20], scale=0.2))
    (root / 'train.json').write_text(json.dumps(people))
    return root


def listed_maps(root: Path) -> Path:
    labelled.seg_maps(root, ignore_index=0)
    content = {split: dict(images=split, masks=f'{split}annot') for split in ('train', 'val')}
    names = {value: dict(name=name) for value, name in enumerate(('background', *labelled.NAMES))}
    (root / 'data.yaml').write_text(yaml.safe_dump(dict(content, classes=names)))
    return root


# --- independent readers: objects by class, or None where the format has no object ---


def count_coco(root: Path) -> Counter:
    counts: Counter = Counter()
    for path in root.glob('*.json'):
        coco = COCO()
        coco.dataset = json.loads(path.read_bytes())
        coco.createIndex()
        counts.update(coco.cats[entry['category_id']]['name'] for entry in coco.anns.values())
    return counts


def count_panoptic(root: Path) -> Counter:
    content = json.loads((root / 'panoptic.json').read_bytes())
    names = {category['id']: category for category in content['categories']}
    categories = [
        names[segment['category_id']]
        for annotation in content['annotations']
        for segment in annotation['segments_info']
    ]
    return Counter(category['name'] for category in categories if category.get('isthing', 1))


def count_mpii(root: Path) -> Counter:
    return Counter('person' for person in json.loads((root / 'train.json').read_bytes()) if any(person['joints_vis']))


def count_yolo(root: Path) -> Counter:
    content = yaml.safe_load((root / 'data.yaml').read_text())
    names = content['names'] if isinstance(content['names'], dict) else dict(enumerate(content['names']))
    splits = [content[split].replace('images', 'labels') for split in ('train', 'val', 'test') if content.get(split)]
    files = [path for split in splits for path in (root / split).glob('*.txt')]
    lines = [line for path in files for line in path.read_text().splitlines() if line.strip()]
    return Counter(names[int(float(line.split()[0]))] for line in lines)


def count_voc(root: Path) -> Counter:
    trees = [ElementTree.parse(path) for path in root.glob('Annotations/*.xml')]
    return Counter(element.findtext('name').strip() for tree in trees for element in tree.iter('object'))


def count_cvat(root: Path) -> Counter:
    images = ElementTree.parse(root / 'annotations.xml').iter('image')
    return Counter(shape.get('label') for image in images for shape in image)


def count_cvat_video(root: Path) -> Counter:
    tracks = ElementTree.parse(root / 'annotations.xml').iter('track')
    return Counter(track.get('label') for track in tracks for shape in track if shape.get('outside') != '1')


def count_labelme(root: Path) -> Counter:
    shapes = [shape for path in root.glob('*.json') for shape in json.loads(path.read_bytes())['shapes']]
    return Counter(shape['label'] for shape in shapes)


def count_label_studio(root: Path) -> Counter:
    tasks = json.loads((root / 'tasks.json').read_bytes())
    results = [result for task in tasks for one in task['annotations'] for result in one['result']]
    return Counter(result['value'][result['type']][0] for result in results)


def count_masks(root: Path) -> Counter:
    return Counter('object' for path in root.glob('*/masks/*.png') if np.asarray(Image.open(path)).any())


def count_deeplabcut(root: Path) -> Counter:
    with open(root / 'labeled-data/video/CollectedData_me.csv', newline='') as file:
        rows = list(csv.reader(file))[3:]
    annotated = [row for row in rows if any(row[1:]) and (root / row[0]).is_file()]
    return Counter('animal' for _ in annotated)


def count_folders(root: Path) -> Counter:
    return Counter(path.parent.name for path in root.glob('*/*.png'))


FORMATS = {
    'coco': (labelled.coco, count_coco),
    'coco runs': (lambda root: labelled.coco(root, 'runs'), count_coco),
    'coco compressed': (lambda root: labelled.coco(root, 'compressed'), count_coco),
    'coco keypoints': (lambda root: labelled.coco(root, 'keypoints'), count_coco),
    'panoptic': (panoptic, count_panoptic),
    'mpii': (mpii, count_mpii),
    'yolo': (labelled.yolo, count_yolo),
    'yolo segmentations': (lambda root: labelled.yolo(root, 'segmentations'), count_yolo),
    'yolo keypoints': (lambda root: labelled.yolo(root, 'keypoints'), count_yolo),
    'voc': (labelled.voc, count_voc),
    'cvat': (labelled.cvat, count_cvat),
    'cvat video': (labelled.cvat_video, count_cvat_video),
    'mit labelme': (labelled.mit_labelme, count_voc),
    'labelme': (labelled.labelme, count_labelme),
    'label studio': (labelled.label_studio, count_label_studio),
    'masks': (labelled.masks, count_masks),
    'segmentation maps': (labelled.seg_maps, None),
    'colors': (lambda root: labelled.seg_maps(root, 'colors'), None),
    'listed maps': (listed_maps, None),
    'deeplabcut': (labelled.deeplabcut, count_deeplabcut),
    'folders': (labelled.folders, count_folders),
}


# --- what is done to a folder ---


def _nodes(content, parent=None, key=None):
    """Every node of a tree with its parent and its key there."""
    if parent is not None:
        yield parent, key
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from _nodes(value, content, key)


def change_tree(data, content):
    """Drop, exchange, repeat or scale a node of JSON or YAML."""
    nodes = list(_nodes(content))
    if not nodes:
        return data.draw(st.sampled_from(ODD))
    parent, key = nodes[data.draw(st.integers(0, len(nodes) - 1))]
    act = data.draw(st.sampled_from(['drop', 'odd', 'repeat', 'scale', 'text']))
    if act == 'drop':
        del parent[key]
    elif act == 'repeat' and isinstance(parent, list):
        parent.insert(key, parent[key])
    elif act == 'scale':
        for owner, at in [(parent, key), *_nodes(parent[key])]:
            if isinstance(owner[at], (int, float)) and not isinstance(owner[at], bool):
                owner[at] *= data.draw(st.sampled_from([-1, 1 / 64, 64, 1000]))
    elif act == 'text':
        parent[key] = str(parent[key])
    else:
        parent[key] = data.draw(st.sampled_from(ODD))
    return content


def change_xml(data, path):
    tree = ElementTree.parse(path)
    pairs = [(parent, child) for parent in tree.iter() for child in parent]
    if not pairs:
        return
    parent, child = pairs[data.draw(st.integers(0, len(pairs) - 1))]
    act = data.draw(st.sampled_from(['drop', 'repeat', 'text', 'attribute', 'tag']))
    if act == 'drop':
        parent.remove(child)
    elif act == 'repeat':
        parent.append(child)
    elif act == 'tag':
        child.tag = data.draw(st.sampled_from(['x', 'object', 'name', 'box', 'polygon', 'mask', 'skeleton', 'points']))
    elif act == 'attribute' and child.attrib:
        child.set(data.draw(st.sampled_from(sorted(child.attrib))), data.draw(st.sampled_from(WORDS[:-2])))
    else:
        child.text = data.draw(st.sampled_from(WORDS[:-2]))
    tree.write(path, encoding='utf-8')


def change_lines(data, path):
    separator = ',' if path.suffix == '.csv' else ' '
    lines = path.read_text().split('\n')
    at = data.draw(st.integers(0, len(lines) - 1))
    fields = lines[at].split(separator)
    k = data.draw(st.integers(0, len(fields) - 1))
    act = data.draw(st.sampled_from(['drop', 'word', 'repeat', 'line', 'twice']))
    if act in ('drop', 'word', 'repeat'):
        word = data.draw(st.sampled_from(WORDS))
        fields[k : k + 1] = {'drop': [], 'word': [word], 'repeat': [fields[k]] * 2}[act]
        lines[at] = separator.join(fields)
    else:
        lines[at : at + 1] = [] if act == 'line' else [lines[at]] * 2
    path.write_text('\n'.join(lines))


def change_image(data, path):
    image = Image.open(path)
    act = data.draw(st.sampled_from(['size', 'mode', 'rotated']))
    if act == 'size':
        image = image.resize(data.draw(st.sampled_from([(1, 1), (64, 49), (128, 96), (2000, 1)])))
    elif act == 'mode':
        image = (
            image.convert(data.draw(st.sampled_from(['1', 'L', 'P', 'RGBA', 'I;16', 'F'])))
            if image.mode != 'F'
            else image
        )
    else:
        image = image.transpose(Image.Transpose.ROTATE_90)
    image.save(path, 'TIFF' if image.mode == 'F' else 'PNG')


def change_file(data, path, root):
    """Cut, empty, rename, exchange or encode a file as a whole."""
    act = data.draw(
        st.sampled_from(['cut', 'empty', 'gone', 'rename', 'dangling', 'circle', 'folder', 'pipe', 'utf16', 'latin'])
    )
    content = path.read_bytes()
    if act == 'cut':
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    elif act == 'utf16':
        path.write_bytes(content.decode(errors='ignore').encode('utf-16'))
    elif act == 'latin':
        path.write_bytes(content.replace(b'cat', b'caf\xe9'))
    elif act == 'rename':
        path.rename(path.with_name(f'other{path.suffix}'))
    elif act == 'empty':
        path.write_bytes(b'')
    else:
        path.unlink()
        if act == 'dangling':
            path.symlink_to('nowhere')
        elif act == 'circle':
            path.symlink_to(root)
        elif act == 'folder':
            path.mkdir()
        elif act == 'pipe':
            os.mkfifo(path)


def change(data, root: Path) -> str:
    """One change of one file; gives its name."""
    files = sorted(path for path in root.rglob('*') if path.is_file())
    kinds = sorted({path.suffix for path in files})  # images are most of the files
    suffix = data.draw(st.sampled_from(kinds))
    candidates = [path for path in files if path.suffix == suffix]
    path = candidates[data.draw(st.integers(0, len(candidates) - 1))]
    try:
        if data.draw(st.integers(0, 3)) == 0:
            change_file(data, path, root)
        elif suffix in ('.json', '.yaml'):
            load = json.loads if suffix == '.json' else yaml.safe_load
            changed = change_tree(data, load(path.read_text()))
            path.write_text(json.dumps(changed) if suffix == '.json' else yaml.safe_dump(changed))
        elif suffix == '.xml':
            change_xml(data, path)
        elif suffix in ('.txt', '.csv'):
            change_lines(data, path)
        else:
            change_image(data, path)
    except (ValueError, TypeError, KeyError, OSError, SyntaxError, yaml.YAMLError, ElementTree.ParseError):
        pass  # the file was changed before
    return path.name


# --- what comes of it ---


def written(converted, task: str) -> Counter:
    """Objects by class of all files of a task; they are as pycocotools and training need them."""
    counts: Counter = Counter()
    for path in set(converted.files.values()):
        if task == 'classification':
            lines = path.read_text().splitlines()
            counts.update(converted.classes[int(line.rpartition(' ')[2])] for line in lines)
            continue
        coco = COCO(str(path))
        for image in coco.imgs.values():
            with Image.open(converted.root / image['file_name']) as opened:
                assert opened.size in ((image['width'], image['height']), (image['height'], image['width']))
            if task == 'semantic':
                file = image.get('seg_map')
                seg_map = path.parent / file if file else converted.root / image['seg_map_file_name']
                values = np.asarray(Image.open(seg_map))
                assert values.shape == (image['height'], image['width'])
                assert set(np.unique(values).tolist()) <= {*range(len(converted.classes)), 255}
        for entry in coco.anns.values():
            image = coco.imgs[entry['image_id']]
            x, y, w, h = entry['bbox']
            assert np.isfinite([x, y, w, h, entry['area']]).all() and entry['area'] > 0
            assert x >= 0 and y >= 0 and x + w <= image['width'] + 1e-2 and y + h <= image['height'] + 1e-2
            if entry.get('segmentation'):
                assert coco.annToMask(entry).shape == (image['height'], image['width'])
            assert np.isfinite(entry.get('keypoints', [])).all()
            counts[coco.cats[entry['category_id']]['name']] += 1
    return counts


@pytest.fixture(scope='module')
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pristine')
    return {name: write(folder / name) for name, (write, _) in FORMATS.items()}


def outcome(root: Path, out: Path, count) -> str:
    """'right', 'left out' or 'refused'; anything else raises."""
    converted = []
    try:
        datasets = read_datasets(root)
        for dataset in datasets:
            converted += [(dataset, task, convert_dataset(dataset, task, out / task)) for task in dataset.tasks()]
    except UserError as error:
        assert str(root) in str(error), f'names no file: {error}'
        assert len(str(error)) < 3000
        return 'refused'
    for dataset, task, conversion in converted:
        counts = written(conversion, task)
        said = [*dataset.warnings, *dataset.missing]
        if said:
            assert all(str(root) in str(file) for file, *_ in dataset.warnings)
        elif count is not None and len(datasets) == 1 and task in ('detection', 'instance', 'classification'):
            try:
                expected = count(root)
            except NOT_READ_BY_OTHERS:
                continue
            assert counts == Counter({str(name).strip(): count for name, count in expected.items()}), task
    return 'left out' if any(dataset.warnings or dataset.missing for dataset in datasets) else 'right'


@pytest.mark.parametrize('name', FORMATS)
def test_folders_as_they_are(pristine, tmp_path, name):
    """The independent readers agree where nothing is wrong."""
    # of the one an image is gone, of the other some objects have no mask
    expected = 'left out' if name in ('deeplabcut', 'labelme', 'label studio') else 'right'
    assert outcome(pristine[name], tmp_path, FORMATS[name][1]) == expected


@settings(max_examples=3 * settings.default.max_examples)
@given(data=st.data(), name=st.sampled_from(sorted(FORMATS)), changes=st.integers(1, 3))
def test_folders(case, pristine, tmp_path_factory, data, name, changes):
    folder = tmp_path_factory.mktemp('folder', numbered=True)
    root = Path(shutil.copytree(pristine[name], folder / 'data'))
    done = [change(data, root) for _ in range(changes)]
    case.holds(f'{name}: {", ".join(done)}'.encode())
    try:
        outcome(root, folder / 'out', FORMATS[name][1])
    finally:
        shutil.rmtree(folder)
