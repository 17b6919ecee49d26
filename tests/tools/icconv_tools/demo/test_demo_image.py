import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as masks

from icconv_tools.demo.image import draw_image
from icconv_tools.demo.tasks import BOXES, KEYPOINTS, LABELS, MASKS


def _differing(data, tmp_path, kind, found):
    """Which of the two columns differ between what was found and nothing."""
    images = []
    for number, results in enumerate((found, [])):
        file = tmp_path / f'{kind.name}{number}.json'
        file.write_text(json.dumps(results))
        draw_image({'a network': {kind: file}}, data, tmp_path / 'p.jpg')
        images.append(cv2.imread(str(tmp_path / 'p.jpg')).astype(int))
        assert (tmp_path / 'p.jpg').stat().st_size <= 400_000
    difference = np.abs(images[0] - images[1]).sum(axis=(0, 2)) > 1000
    return difference.reshape(2, -1).any(axis=1).tolist()


@pytest.mark.parametrize('score', [0.9, 0.1])
@pytest.mark.parametrize('kind', [BOXES, MASKS, KEYPOINTS], ids=lambda kind: kind.name)
def test_right_column_shows_what_was_found(data, tmp_path, kind, score):
    """Drawn from what the evaluator wrote, if it is confident; the truth stays."""
    area = np.zeros((64, 64), np.uint8)
    area[8:40, 8:40] = 1
    outline = masks.encode(np.asfortranarray(area))
    thing = {'bbox': [8, 8, 32, 32], 'category_id': 2, 'score': score, 'keypoints': [10, 20, 2] * 8 + [30, 40, 2] * 9}
    thing['segmentation'] = {'size': outline['size'], 'counts': outline['counts'].decode()}
    found = [thing | {'image_id': i} for i in range(1, 5)]
    assert _differing(data, tmp_path, kind, found) == [False, score == 0.9]


def test_label_maps_tint(data, tmp_path):
    images = []
    for number in (0, 3):
        folder = tmp_path / f'labels{number}'
        folder.mkdir()
        for i in range(1, 5):
            cv2.imwrite(str(folder / f'{i:06d}.png'), np.full((64, 64), number, np.uint8))
        draw_image({'a network': {LABELS: folder}}, data, tmp_path / 'p.jpg')
        images.append(cv2.imread(str(tmp_path / 'p.jpg')).astype(int))
    left, right = np.split(np.abs(images[0] - images[1])[26:], 2, axis=1)
    assert left[:, :-8].max() == 0 and np.median(right) > 10


def test_each_scene_is_one_row_with_a_column_for_each_network(data, tmp_path):
    kinds = dict.fromkeys((BOXES, KEYPOINTS), tmp_path / 'missing.json')
    draw_image({'a network': kinds, 'another': kinds}, data, tmp_path / 'p.jpg')
    height, width, _ = cv2.imread(str(tmp_path / 'p.jpg')).shape
    assert width == 3 * 384 and (height - 26) % 384 == 0
