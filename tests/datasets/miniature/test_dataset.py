import hashlib
import json
import multiprocessing
import runpy
import subprocess
import sys

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from icconv_mm.datasets import miniature
from icconv_mm.datasets.miniature import CLASSES, KEYPOINTS, MiniatureOptions, ensure_miniature, is_drawn
from icconv_mm.datasets.miniature.dataset import STAMP
from icconv_mm.datasets.miniature.scenes import MIN_AREA

OPTIONS = MiniatureOptions(train=120, val=30, size=128, seed=3)
SMALL = MiniatureOptions(train=2, val=1, size=64, seed=0)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'miniature'
    assert ensure_miniature(folder, OPTIONS)
    return folder


@pytest.fixture(scope='module')
def instances(root):
    return COCO(root / 'annotations/instances_train.json')


@pytest.fixture(scope='module')
def people(root):
    return COCO(root / 'annotations/person_keypoints_train.json')


def _digest(root):
    digest = hashlib.sha256()
    for file in sorted(root.rglob('*')):
        if file.is_file():
            digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()


def test_same_options_same_bytes(tmp_path):
    for name in 'ab':
        ensure_miniature(tmp_path / name, SMALL)
    ensure_miniature(tmp_path / 'c', MiniatureOptions(train=2, val=1, size=64, seed=1))
    assert _digest(tmp_path / 'a') == _digest(tmp_path / 'b') != _digest(tmp_path / 'c')


def test_a_picture_does_not_depend_on_how_many_follow(tmp_path, root):
    ensure_miniature(tmp_path / 'few', MiniatureOptions(train=1, val=1, size=OPTIONS.size, seed=OPTIONS.seed))
    for file in ('train/000001.jpg', 'val/000001.jpg', 'semantic/val/000001.png'):
        assert (tmp_path / 'few' / file).read_bytes() == (root / file).read_bytes()


def test_splits_differ(root):
    assert (root / 'train/000001.jpg').read_bytes() != (root / 'val/000001.jpg').read_bytes()


def test_files(root):
    for split, number in (('train', OPTIONS.train), ('val', OPTIONS.val)):
        names = [f'{i:06d}' for i in range(1, number + 1)]
        assert sorted(file.name for file in (root / split).iterdir()) == [f'{name}.jpg' for name in names]
        assert sorted(file.name for file in (root / 'semantic' / split).iterdir()) == [f'{name}.png' for name in names]
        document = json.loads((root / f'annotations/instances_{split}.json').read_text())
        assert [image['file_name'] for image in document['images']] == [f'{name}.jpg' for name in names]
    assert cv2.imread(str(root / 'train/000001.jpg')).shape == (128, 128, 3)


def test_annotations_are_the_visible_parts(root, instances):
    """Masks, boxes, areas and label maps all say the same as the scene they were drawn from."""
    for image in range(1, 21):
        scene = miniature.scene(OPTIONS, 'train', image - 1)
        annotations = instances.loadAnns(instances.getAnnIds(image))
        assert [each['category_id'] - 1 for each in annotations] == [item.label for item in scene.items]
        labels = np.zeros((128, 128), np.uint8)
        for index, annotation in enumerate(annotations):
            truth, mask = scene.visible(index), instances.annToMask(annotation).astype(bool)
            assert (truth & mask).sum() / (truth | mask).sum() > 0.97
            rows, columns = np.nonzero(truth)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation['bbox'] == box
            assert annotation['area'] == truth.sum()
            assert not labels[truth].any()  # no pixel belongs to two
            labels[truth] = annotation['category_id']
        assert np.array_equal(labels, cv2.imread(str(root / f'semantic/train/{image:06d}.png'), cv2.IMREAD_GRAYSCALE))


def test_variety(instances, people):
    annotations = list(instances.anns.values())
    labels = np.array([each['category_id'] for each in annotations])
    assert (np.bincount(labels, minlength=7)[1:] > 0.06 * len(labels)).all()
    sides = np.sqrt([each['area'] for each in annotations]) / OPTIONS.size
    assert np.quantile(sides, 0.1) < 0.12
    assert np.quantile(sides, 0.9) > 0.25
    counts = np.array([len(instances.getAnnIds(i)) for i in instances.imgs])
    with_people = np.array([bool(people.getAnnIds(i)) for i in people.imgs])
    assert (counts == 0).any()
    assert (~with_people & (counts > 0)).any()
    assert 0.6 < with_people.mean() < 0.95
    kinds = {type(each['segmentation']) for each in annotations if not each['iscrowd']}
    assert kinds == {list, dict}  # polygons, and run lengths where there are holes
    assert any(each['iscrowd'] for each in annotations)


def test_objects_overlap(instances):
    """A good part of the objects is partly hidden or cut off: the outline of whole ones does not do."""
    whole = seen = 0
    for image in range(40):
        scene = miniature.scene(OPTIONS, 'train', image)
        for index, item in enumerate(scene.items):
            visible = scene.visible(index).sum()
            whole += visible == item.area
            seen += 1
            assert visible >= min(MIN_AREA, item.area)
    assert 0.1 < 1 - whole / seen < 0.7


def test_keypoints(people):
    """v is 2 on the person's own pixels, 1 where something is in front, 0 (and x, y too) outside the image."""
    assert people.cats[1]['keypoints'] == list(KEYPOINTS)
    assert KEYPOINTS[0] == 'nose' and KEYPOINTS[5] == 'left_shoulder' and KEYPOINTS[16] == 'right_ankle'
    counts = np.zeros(3, int)
    for annotation in people.anns.values():
        points = np.array(annotation['keypoints']).reshape(17, 3)
        assert annotation['num_keypoints'] == np.count_nonzero(points[:, 2])
        if annotation['iscrowd']:
            assert not points.any()
            continue
        counts += np.bincount(points[:, 2].astype(int), minlength=3)
        mask = people.annToMask(annotation)
        assert not points[points[:, 2] == 0].any()
        for x, y, v in points[points[:, 2] > 0]:
            assert 0 <= x <= 127 and 0 <= y <= 127
            hit = mask[max(round(y) - 1, 0) : round(y) + 2, max(round(x) - 1, 0) : round(x) + 2]
            assert hit.any() if v == 2 else not hit.all()
    assert (counts / counts.sum() > [0.03, 0.02, 0.6]).all()


def test_people_face_the_viewer(people):
    points = np.array([each['keypoints'] for each in people.anns.values()]).reshape(-1, 17, 3)
    both = points[(points[:, 5, 2] > 0) & (points[:, 6, 2] > 0)]
    assert (both[:, 5, 0] > both[:, 6, 0]).mean() > 0.9  # the left shoulder is on the right


@pytest.mark.parametrize('kind', ['bbox', 'segm', 'keypoints'])
def test_coco_evaluation_of_the_truth_is_perfect(root, kind):
    name = 'person_keypoints' if kind == 'keypoints' else 'instances'
    truth = COCO(root / f'annotations/{name}_val.json')
    results = []
    for each in truth.anns.values():
        if not each['iscrowd']:
            result = {'image_id': each['image_id'], 'category_id': each['category_id'], 'score': 1.0}
            if kind == 'segm':
                result['segmentation'] = truth.annToRLE(each)
            results.append(
                result | {key: each[key] for key in {'bbox': ['bbox'], 'keypoints': ['keypoints']}.get(kind, [])}
            )
    evaluation = COCOeval(truth, truth.loadRes(results), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


# --- a colour tells nothing


def _histograms(root, split, bins=4):
    """Per annotated object: its class and the histogram of the colours of its visible pixels."""
    coco = COCO(root / f'annotations/instances_{split}.json')
    labels, histograms = [], []
    for image in coco.imgs.values():
        picture = cv2.imread(str(root / split / image['file_name'])) // (256 // bins)
        for annotation in coco.loadAnns(coco.getAnnIds(image['id'], iscrowd=False)):
            code = picture[coco.annToMask(annotation) > 0].astype(int) @ [1, bins, bins * bins]
            histograms.append(np.bincount(code, minlength=bins**3) / len(code))
            labels.append(annotation['category_id'])
    return np.array(labels), np.array(histograms)


def _balanced_accuracy(truth, predicted):
    return np.mean([(predicted[truth == label] == label).mean() for label in np.unique(truth)])


def _nearest(train, val, neighbors=5):
    (labels, features), (_, queries) = train, val
    distances = np.abs(queries[:, None] - features[None]).sum(-1)
    nearest = labels[np.argsort(distances, axis=1)[:, :neighbors]]
    return np.array([np.bincount(row).argmax() for row in nearest])


def test_color_does_not_give_the_class_away(root):
    train, val = _histograms(root, 'train'), _histograms(root, 'val')
    chance = 1 / len(CLASSES)
    assert _balanced_accuracy(val[0], _nearest(train, val)) < chance + 0.12
    mean_color = [(labels, h.reshape(-1, 4, 4, 4)) for labels, h in (train, val)]
    marginals = [(labels, np.concatenate([h.sum((1, 2)), h.sum((1, 3)), h.sum((2, 3))], 1)) for labels, h in mean_color]
    assert _balanced_accuracy(val[0], _nearest(*marginals)) < chance + 0.12


# --- drawing only once


def test_reused_and_redrawn(tmp_path):
    root = tmp_path / 'set'
    assert not is_drawn(root)
    assert ensure_miniature(root, SMALL)
    assert is_drawn(root, SMALL) and not is_drawn(root, OPTIONS)
    before = (root / 'train/000001.jpg').stat().st_mtime_ns
    assert not ensure_miniature(root, SMALL)
    assert (root / 'train/000001.jpg').stat().st_mtime_ns == before
    other = MiniatureOptions(train=1, val=1, size=64, seed=9)
    assert ensure_miniature(root, other)
    assert is_drawn(root, other)
    assert not (root / 'train/000002.jpg').exists()


@pytest.mark.parametrize('stamp', ['', '[]', '{"version": 1'])
def test_unreadable_stamp_is_no_dataset(tmp_path, stamp):
    (tmp_path / STAMP).write_text(stamp)
    assert not is_drawn(tmp_path, SMALL)
    assert not is_drawn(tmp_path)


def test_interrupted_drawing_leaves_nothing(tmp_path):
    def interrupted(pairs):
        yield pairs[0]
        raise KeyboardInterrupt

    root = tmp_path / 'set'
    with pytest.raises(KeyboardInterrupt):
        ensure_miniature(root, SMALL, interrupted)
    assert list(tmp_path.iterdir()) == []
    ensure_miniature(root, SMALL)
    with pytest.raises(KeyboardInterrupt):  # an older set survives
        ensure_miniature(root, OPTIONS, interrupted)
    assert is_drawn(root, SMALL)


def test_killed_drawing_is_drawn_anew(tmp_path):
    (tmp_path / '.set.partial/train').mkdir(parents=True)
    (tmp_path / '.set.partial/train/000009.jpg').write_bytes(b'half')
    ensure_miniature(tmp_path / 'set', SMALL)
    assert sorted(file.name for file in (tmp_path / 'set/train').iterdir()) == ['000001.jpg', '000002.jpg']
    assert [file.name for file in tmp_path.iterdir()] == ['set']


def test_foreign_folder_is_never_touched(tmp_path):
    (tmp_path / 'mine.txt').write_text('mine')
    with pytest.raises(FileExistsError, match=r'is not a miniature dataset \(no miniature.json in it\)'):
        ensure_miniature(tmp_path, SMALL)
    with pytest.raises(FileExistsError, match=r'mine\.txt'):
        ensure_miniature(tmp_path / 'mine.txt', SMALL)
    assert (tmp_path / 'mine.txt').read_text() == 'mine'


def _draw_there(root):
    return ensure_miniature(root, SMALL)


def test_concurrent_drawing(tmp_path):
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        drawn = pool.map(_draw_there, [tmp_path / 'set'] * 2)
    assert sorted(drawn) == [False, True]
    assert is_drawn(tmp_path / 'set', SMALL)


@pytest.mark.parametrize(('name', 'value'), [('train', 0), ('val', -1), ('size', 32), ('size', 100.5), ('seed', -1)])
def test_bad_options(name, value):
    with pytest.raises(ValueError, match=f'{name} must be an integer >= .*, got {value}'):
        MiniatureOptions(**{name: value})


def test_tool(tmp_path, repo):
    command = [sys.executable, repo / 'tools/make_miniature.py', tmp_path / 'set', '--train=2', '--val=1', '--size=64']
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.endswith(f'drawn: {tmp_path}/set\n')
    assert is_drawn(tmp_path / 'set', SMALL)


def test_tool_by_its_main(tmp_path, repo, monkeypatch, capsys):
    ensure_miniature(tmp_path / 'set', SMALL)
    main = runpy.run_path(str(repo / 'tools/make_miniature.py'))['main']
    monkeypatch.setattr(sys, 'argv', ['make_miniature.py', str(tmp_path / 'set'), '--train=2', '--val=1', '--size=64'])
    main()
    assert capsys.readouterr().out == f'already there: {tmp_path}/set\n'
    monkeypatch.setattr(sys, 'argv', ['make_miniature.py', str(tmp_path / 'set'), '--size=8'])
    with pytest.raises(SystemExit) as end:
        main()
    assert str(end.value) == 'error: miniature dataset: size must be an integer >= 64, got 8'
