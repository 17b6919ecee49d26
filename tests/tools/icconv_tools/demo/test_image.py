import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as masks

from icconv_tools.demo.image import draw_image
from icconv_tools.demo.tasks import BOXES, KEYPOINTS, LABELS, MASKS


def _differing(data, tmp_path, kind, predicted):
    """Which of the two rows differ between what was found and nothing."""
    images = []
    for number, results in enumerate((predicted, [])):
        file = tmp_path / f'{kind.name}{number}.json'
        file.write_text(json.dumps(results))
        draw_image({'a network': {kind: file}}, data, tmp_path / 'p.jpg')
        images.append(cv2.imread(str(tmp_path / 'p.jpg')).astype(int))
        assert (tmp_path / 'p.jpg').stat().st_size <= 400_000
    difference = np.abs(images[0] - images[1]).sum(axis=(1, 2)) > 1000
    return difference.reshape(2, -1).any(axis=1).tolist()


@pytest.mark.parametrize('score', [0.9, 0.1])
@pytest.mark.parametrize('kind', [BOXES, MASKS, KEYPOINTS], ids=lambda kind: kind.name)
def test_second_row_shows_what_was_found(data, tmp_path, kind, score):
    """Drawn from what the evaluator wrote, if it is confident; the truth stays."""
    area = np.zeros((64, 64), np.uint8)
    area[8:40, 8:40] = 1
    segmentation = masks.encode(np.asfortranarray(area))
    annotation = {
        'bbox': [8, 8, 32, 32],
        'category_id': 2,
        'score': score,
        'keypoints': [10, 20, 2] * 8 + [30, 40, 2] * 9,
    }
    annotation['segmentation'] = {'size': segmentation['size'], 'counts': segmentation['counts'].decode()}
    predicted = [annotation | {'image_id': i} for i in range(1, 5)]
    assert _differing(data, tmp_path, kind, predicted) == [False, score == 0.9]


def test_seg_maps_tint(data, tmp_path):
    images = []
    for number in (0, 3):
        folder = tmp_path / f'labels{number}'
        folder.mkdir()
        for i in range(1, 5):
            cv2.imwrite(str(folder / f'{i:06d}.png'), np.full((64, 64), number, np.uint8))
        draw_image({'a network': {LABELS: folder}}, data, tmp_path / 'p.jpg')
        images.append(cv2.imread(str(tmp_path / 'p.jpg')).astype(int))
    truth, predicted = np.split(np.abs(images[0] - images[1]), 2)
    assert truth[:-8].max() == 0 and np.median(predicted) > 10


def test_keypoints_below_the_score_are_not_drawn(data, tmp_path):
    """A person's confident keypoints are, the others would be a skeleton over the whole scene."""
    person = {'bbox': [8, 8, 32, 32], 'category_id': 1, 'score': 0.9, 'image_id': 1}
    sure = [person | {'image_id': i, 'keypoints': [20, 20, 0.9] * 17} for i in range(1, 5)]
    unsure = [annotation | {'keypoints': [20, 20, 0.9] * 16 + [60, 60, 0.1]} for annotation in sure]
    images = []
    for name, results in (('sure', sure), ('unsure', unsure)):
        file = tmp_path / f'{name}.json'
        file.write_text(json.dumps(results))
        draw_image({'a network': {KEYPOINTS: file}}, data, tmp_path / 'p.jpg')
        images.append(cv2.imread(str(tmp_path / 'p.jpg')).astype(int))
    corner = np.abs(images[0] - images[1])[-96:, 288:384]
    assert corner.max() < 40
