import hashlib
import runpy
import sys

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from icconv_tools import miniature
from icconv_tools.miniature import CLASSES, KEYPOINTS, MiniatureOptions, ensure_miniature, is_drawn

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


def test_annotations_are_the_visible_parts(root, instances):
    """Masks, boxes, areas and segmentation maps all say the same as the scene they were drawn from."""
    for image in range(1, 21):
        scene = miniature.scene(OPTIONS, 'train', image - 1)
        annotations = instances.loadAnns(instances.getAnnIds(image))
        assert [annotation['category_id'] - 1 for annotation in annotations] == [item.label for item in scene.items]
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


@pytest.mark.parametrize('kind', ['bbox', 'segm', 'keypoints'])
def test_coco_evaluation_of_the_truth_is_perfect(root, kind):
    name = 'person_keypoints' if kind == 'keypoints' else 'instances'
    truth = COCO(root / f'annotations/{name}_val.json')
    results = []
    for annotation in truth.anns.values():
        if not annotation['iscrowd']:
            result = {'image_id': annotation['image_id'], 'category_id': annotation['category_id'], 'score': 1.0}
            if kind == 'segm':
                result['segmentation'] = truth.annToRLE(annotation)
            results.append(
                result | {key: annotation[key] for key in {'bbox': ['bbox'], 'keypoints': ['keypoints']}.get(kind, [])}
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
    for entry in coco.imgs.values():
        pixels = cv2.imread(str(root / split / entry['file_name'])) // (256 // bins)
        for annotation in coco.loadAnns(coco.getAnnIds(entry['id'], iscrowd=False)):
            code = pixels[coco.annToMask(annotation) > 0].astype(int) @ [1, bins, bins * bins]
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


def test_foreign_folder_is_never_touched(tmp_path):
    (tmp_path / 'mine.txt').write_text('mine')
    with pytest.raises(FileExistsError, match=r'is not a miniature dataset \(no miniature.json in it\)'):
        ensure_miniature(tmp_path, SMALL)
    with pytest.raises(FileExistsError, match=r'mine\.txt'):
        ensure_miniature(tmp_path / 'mine.txt', SMALL)
    assert (tmp_path / 'mine.txt').read_text() == 'mine'


def test_tool(tmp_path, repo, monkeypatch, capsys):
    main = runpy.run_path(str(repo / 'tools/make_miniature.py'))['main']
    monkeypatch.setattr(sys, 'argv', ['make_miniature.py', str(tmp_path / 'set'), '--train=2', '--val=1', '--size=64'])
    for said in ('drawn', 'already there'):
        main()
        assert capsys.readouterr().out.endswith(f'{said}: {tmp_path}/set\n')
        assert is_drawn(tmp_path / 'set', SMALL)
    monkeypatch.setattr(sys, 'argv', ['make_miniature.py', str(tmp_path / 'set'), '--size=8'])
    with pytest.raises(SystemExit) as end:
        main()
    assert str(end.value) == 'error: miniature dataset: size must be an integer >= 64, got 8'
