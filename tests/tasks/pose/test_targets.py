import numpy as np
import pytest

from icconv_mm.tasks.pose.targets import gaussian_heatmaps, keypoint_indices


def test_every_pixel_is_the_largest_gaussian_that_reaches_it():
    rng = np.random.RandomState(0)
    keypoints, visible = rng.uniform(-3, 34, (6, 3, 2)), rng.randint(0, 3, (6, 3))
    got = gaussian_heatmaps(keypoints, visible, (32, 24), 2)
    expected = np.zeros((3, 24, 32))
    for n, k in np.ndindex(6, 3):
        cx, cy = int(keypoints[n, k, 0]), int(keypoints[n, k, 1])
        if not visible[n, k] or not (0 <= cx < 32 and 0 <= cy < 24):
            continue
        for y, x in np.ndindex(24, 32):
            if max(abs(y - cy), abs(x - cx)) <= 7:
                value = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)
                expected[k, y, x] = max(expected[k, y, x], value)
    assert expected.max() == 1
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize('people', [0, 2])
def test_nothing_visible(people):
    keypoints, visible = np.zeros((people, 5, 2)), np.zeros((people, 5))
    assert not gaussian_heatmaps(keypoints, visible, (8, 6), 2).any()
    assert gaussian_heatmaps(keypoints, visible, (8, 6), 2).shape == (5, 6, 8)
    assert not keypoint_indices(keypoints, visible, (8, 6)).any()
    assert keypoint_indices(keypoints, visible, (8, 6)).shape == (people, 5, 2)


def test_indices_count_rows_of_the_map():
    keypoints = np.array([[[3.9, 2.1], [-0.4, 0.0], [-1.0, 0.0], [8.0, 0.0], [7.9, 5.9], [1.0, 1.0]]])
    visible = np.array([[2, 1, 2, 2, 2, 0]])
    expected = [[19, 1], [0, 1], [0, 0], [0, 0], [47, 1], [0, 0]]
    assert keypoint_indices(keypoints, visible, (8, 6)).tolist() == [expected]
