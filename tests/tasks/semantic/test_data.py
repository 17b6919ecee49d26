import cv2
import numpy as np
import pytest

pytest.importorskip('mmseg')

from icconv_mm.errors import InputError
from icconv_mm.tasks.semantic import RandomBlur


def random_image():
    return np.random.RandomState(0).randint(0, 256, (12, 15, 3), dtype=np.uint8)


def test_blurs_its_share_of_the_images():
    weights = np.array([1, 4, 6, 4, 1]) / 16
    blur, expected = RandomBlur(), cv2.sepFilter2D(random_image().astype(float), -1, weights, weights)
    blurred = 0
    for _ in range(200):
        result = blur({'img': random_image()})['img']
        if not np.array_equal(result, random_image()):
            assert abs(result - expected).max() <= 0.5 + 1e-6
            blurred += 1
    assert 70 < blurred < 130


def test_all_or_none():
    labels = np.arange(4)
    for prob, same in ((0, True), (1, False)):
        results = RandomBlur(prob=prob, kernel_size=3)({'img': random_image(), 'gt_seg_map': labels})
        assert np.array_equal(results['img'], random_image()) is same
        assert results['gt_seg_map'] is labels


@pytest.mark.parametrize(
    'options, words', [({'prob': 2}, 'prob must be from 0 to 1, got 2'), ({'kernel_size': 4}, 'must be odd .*got 4')]
)
def test_errors(options, words):
    with pytest.raises(InputError, match=words):
        RandomBlur(**options)
