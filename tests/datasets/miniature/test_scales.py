import json
import runpy

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from icconv_mm.datasets.miniature import ensure_miniature, is_drawn, scene
from icconv_mm.datasets.miniature.scales import CLASSES, MARK, ScalesOptions
from icconv_mm.errors import InputError

OPTIONS = ScalesOptions(train=16, val=1, test=2, distances=(14, 30), seed=5)


@pytest.fixture(scope='module')
def scenes():
    return [scene(OPTIONS, 'train', index) for index in range(OPTIONS.train)]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'scales'
    assert ensure_miniature(folder, OPTIONS)
    return folder


def rings(scenes):
    return [(each, item) for each in scenes for item in each.items if item.planted]


def is_mark(image, point) -> bool:
    """A dark core in a light disc."""
    x, y = np.rint(point).astype(int)
    around = [image[y + 3, x], image[y - 3, x], image[y, x + 3], image[y, x - 3]]
    return image[y, x].max() < 60 and np.min(around) > 200


def test_sizes_differ_by_a_factor_of_16_within_a_picture(scenes):
    spread = [np.sqrt(max(i.area for i in each.items) / min(i.area for i in each.items)) for each in scenes]
    assert np.median(spread) > 15 and min(spread) > 8


def test_every_class_is_there_and_objects_crowd(scenes):
    counts = np.bincount([item.label for each in scenes for item in each.items], minlength=6)
    assert (counts > 0.05 * counts.sum()).all()
    hidden = [each.visible(i).sum() < item.area for each in scenes for i, item in enumerate(each.items)]
    assert 0.2 < np.mean(hidden) < 0.9


def test_a_ring_is_told_by_the_mark_at_a_planted_distance(scenes):
    found = rings(scenes)
    assert len(found) > 20 and {item.planted['distance'] for _, item in found} == {14, 30}
    for each, item in found:
        offset = np.subtract(item.planted['mark'], item.planted['center'])
        along = 0 if CLASSES[item.label] == 'beside' else 1
        assert abs(offset[along]) == item.planted['distance'] and offset[1 - along] == 0
        assert is_mark(each.image, item.planted['mark'])


def test_no_other_mark_tells_a_class(scenes):
    """Where a mark of the other class would be there is none, and there is a mark on that axis at another distance."""
    others = 0
    for each, item in rings(scenes):
        center, across = (
            np.array(item.planted['center']),
            np.array([0, 1] if CLASSES[item.label] == 'beside' else [1, 0]),
        )
        for step in range(-60, 61):
            point = center + step * across
            if not (point > 2 + MARK).all() or not (point < OPTIONS.size - 3 - MARK).all() or abs(step) < 8:
                continue
            if is_mark(each.image, point):
                assert all(abs(abs(step) - distance) >= 2 * MARK - 1 for distance in OPTIONS.distances)
                others += 1
    assert others > 0.5 * len(rings(scenes))


def test_textures_have_equal_tones(scenes):
    """The mean grey of a texture says nothing of its class, and both are half dark."""
    means = {label: [] for label in (2, 3)}
    for each in scenes:
        gray = cv2.cvtColor(each.image, cv2.COLOR_BGR2GRAY)
        for index, item in enumerate(each.items):
            if item.label in means and item.area > 200:
                pixels = gray[each.visible(index)]
                means[item.label].append((pixels > pixels.mean()).mean())
    assert all(0.35 < np.mean(shares) < 0.65 for shares in means.values())


def test_files(root):
    for split, number in (('train', 16), ('val', 1), ('test', 2)):
        instances = COCO(root / f'annotations/instances_{split}.json')
        assert [each['name'] for each in instances.loadCats([1, 2, 3, 4, 5, 6])] == list(CLASSES)
        assert len(instances.imgs) == len(list((root / split).iterdir())) == number
        crops = [path.parent.name for path in (root / 'crops' / split).rglob('*.jpg')]
        labels = [CLASSES[each['category_id'] - 1] for each in instances.anns.values()]
        assert sorted(crops) == sorted(labels)
        assert len(list((root / 'semantic' / split).iterdir())) == number
    people = COCO(root / 'annotations/person_keypoints_train.json')
    assert sum(each['num_keypoints'] for each in people.anns.values()) > 100
    planted = [each for each in COCO(root / 'annotations/instances_train.json').anns.values() if 'distance' in each]
    assert {CLASSES[each['category_id'] - 1] for each in planted} == {'beside', 'above'}


def test_a_crop_has_the_object_in_its_middle(root):
    annotations = json.loads((root / 'annotations/instances_test.json').read_text())['annotations']
    first = [each for each in annotations if each['image_id'] == 1]
    image = cv2.imread(str(root / 'test/000001.jpg')).astype(int)
    compared = 0
    for index, each in enumerate(first):
        x, y, width, height = each['bbox']
        left, top = round(x + width / 2 + 32) - 64, round(y + height / 2 + 32) - 64
        if min(left, top) < 0 or max(left, top) > 128 - 64:
            continue  # mirrored beyond the image
        path = root / f'crops/test/{CLASSES[each["category_id"] - 1]}/000001_{index:02d}.jpg'
        crop = cv2.imread(str(path)).astype(int)
        assert np.abs(crop - image[top : top + 64, left : left + 64]).mean() < 8  # of two compressions
        compared += 1
    assert compared


def test_equal_options_draw_equal_scenes(scenes):
    again = scene(OPTIONS, 'train', 3)
    assert np.array_equal(again.image, scenes[3].image) and np.array_equal(again.owner, scenes[3].owner)
    assert not np.array_equal(scene(OPTIONS, 'test', 3).image, again.image)


def test_other_options_are_drawn_anew(root):
    assert not ensure_miniature(root, OPTIONS)
    with pytest.raises(InputError, match='distances must be above 6 and below half of size'):
        ScalesOptions(distances=(14, 64))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'test': 0}, 'test must be an integer >= 1, got 0'),
        ({'largest': 200}, r'largest must be above smallest \(6\) and at most size \(128\), got 200'),
        ({'crowding': 2.0}, 'crowding must be from 0 to 1, got 2.0'),
        ({'distances': ()}, 'distances must be'),
        ({'period': 1}, 'period must be an integer >= 2, got 1'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        ScalesOptions(**options)


def test_tool(repo, tmp_path, monkeypatch, capsys):
    main = runpy.run_path(str(repo / 'tools/make_miniature.py'))['main']
    small = [str(tmp_path / 'set'), '--train=1', '--val=1', '--size=64']
    main([*small, '--scales', '--test=1', '--distances', '12', '20'])
    assert is_drawn(tmp_path / 'set', ScalesOptions(1, 1, 64, test=1, distances=(12, 20)))
    with pytest.raises(SystemExit):
        main([*small, '--distances', '12'])
    assert '--test and --distances are of --scales' in capsys.readouterr().err
