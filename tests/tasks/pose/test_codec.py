import subprocess
import sys

import numpy as np
import pytest
import torch


@pytest.fixture
def codec(mmpose):
    from mmpose.registry import KEYPOINT_CODECS

    return KEYPOINT_CODECS.build(dict(type='icconv_mm.AECodec', input_size=(128, 96), heatmap_size=(32, 24)))


def test_mmpose_builds_it_after_importing_the_package_alone(mmpose):
    code = (
        'import icconv_mm\nfrom mmpose.registry import KEYPOINT_CODECS\n'
        "print(type(KEYPOINT_CODECS.build(dict(type='icconv_mm.AECodec'))).__module__)"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.split() == ['icconv_mm.tasks.pose.codec'], done.stderr


def _people(count, seed=0):
    return np.random.RandomState(seed).uniform((8, 8), (120, 88), (count, 17, 2)).astype(np.float32)


def test_what_is_encoded_can_be_decoded(codec):
    keypoints = _people(3)
    encoded = codec.encode(keypoints)
    tags = np.zeros((17, 24, 32, 1), dtype=np.float32)
    for person, indices in enumerate(encoded['keypoint_indices']):
        for keypoint, (index, visible) in enumerate(indices):
            assert visible
            tags[keypoint, index // 32, index % 32] = 5 * person
    maps = torch.from_numpy(encoded['heatmaps']), torch.from_numpy(tags)
    decoded, scores, person_scores = codec.decode(maps)
    assert decoded.shape == (3, 17, 2) and scores.shape == (3, 17) and person_scores.shape == (3,)
    order = [int(np.abs(decoded[:, 0] - keypoints[i, 0]).sum(1).argmin()) for i in range(3)]
    assert sorted(order) == [0, 1, 2]
    # A keypoint is known to its heatmap pixel, 4 input pixels.
    np.testing.assert_allclose(decoded[order], keypoints, atol=4)
    assert decoded.dtype == np.float32 and (scores > 0.99).all()


def test_decoded_coordinates_are_those_of_the_given_input(codec):
    encoded = codec.encode(_people(1))
    maps = torch.from_numpy(encoded['heatmaps']), torch.zeros(17, 24, 32, 1)
    nominal, double = codec.decode(maps)[0], codec.decode(maps, input_size=(256, 192))[0]
    np.testing.assert_allclose(double, 2 * nominal)


def test_batch_decode_is_decode_of_each(codec):
    maps = torch.stack([torch.from_numpy(codec.encode(_people(2, seed))['heatmaps']) for seed in (1, 2)])
    tags = torch.randn(2, 17, 24, 32, 1)
    batch = codec.batch_decode(maps, tags)
    for i in range(2):
        for got, expected in zip(batch, codec.decode((maps[i], tags[i]))):
            np.testing.assert_array_equal(got[i], expected)


def test_tags_of_people_without_visible_keypoints_and_beyond_the_limit_are_left_out(codec):
    keypoints, visible = _people(45), np.ones((45, 17), dtype=np.float32)
    visible[:5] = 0
    encoded = codec.encode(keypoints, visible)
    assert encoded['keypoint_indices'].shape == (30, 17, 2)
    first = np.trunc(keypoints[5] / 4).astype(int)
    np.testing.assert_array_equal(encoded['keypoint_indices'][0, :, 0], first[:, 1] * 32 + first[:, 0])
    # All 40 are in the heatmaps.
    x, y = np.trunc(keypoints[44, 3] / 4).astype(int)
    assert encoded['heatmaps'][3, y, x] == 1


def test_nobody(codec):
    encoded = codec.encode(
        np.zeros((0, 17, 2), dtype=np.float32), np.zeros((0, 17), dtype=np.float32), ori_shape=(96, 128)
    )
    assert not encoded['heatmaps'].any() and encoded['heatmaps'].shape == (17, 24, 32)
    assert encoded['keypoint_indices'].shape == (0, 17, 2)
    assert encoded['heatmap_mask'].all()
