import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate

from icconv_mm.errors import InputError


@pytest.fixture
def pipeline(mmpose):
    from mmpose.registry import TRANSFORMS

    def build(*transforms):
        return Compose([TRANSFORMS.build(transform) for transform in transforms])

    return build


ENCODER = dict(type='icconv_mm.AECodec', input_size=(96, 64), heatmap_size=(24, 16))
AFFINE = dict(type='icconv_mm.BottomupAffine', input_size=(96, 64))


def _dot(sample):
    """A black image with one bright dot, at the first keypoint of the first person."""
    sample['img'][:] = 0
    sample['keypoints'][0, 0] = 70, 50
    sample['img'][48:53, 68:73] = 255
    return sample


def _brightest(image):
    y, x = np.nonzero(image.max(-1) > 0.9 * image.max())
    return np.array([x.mean(), y.mean()])


@pytest.mark.parametrize('prob', [0.0, 1.0])
def test_keypoints_move_with_the_image(pipeline, sample, prob):
    flip = dict(type='RandomFlip', prob=prob, direction='horizontal')
    results = pipeline(dict(AFFINE, shift_factor=0.05), flip)(_dot(sample))
    assert results['img'].shape == (64, 96, 3) and results['img_shape'] == (64, 96)
    keypoint = results['flip_indices'][0]  # the nose, which has no counterpart
    np.testing.assert_allclose(results['keypoints'][0, keypoint], _brightest(results['img']), atol=1.2)


@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])  # mmpose 1.3 cannot flip boxes diagonally
def test_targets_and_mask_move_with_the_image(pipeline, sample, direction):
    sample['invalid_segs'] = [[[65, 45, 76, 45, 76, 56, 65, 56]]]
    flip = dict(type='RandomFlip', prob=1.0, direction=direction)
    generate = dict(type='GenerateTarget', encoder=ENCODER)
    results = pipeline(dict(AFFINE, shift_factor=0.05), flip, generate)(_dot(sample))
    keypoint = results['flip_indices'][0]
    x, y = results['keypoints'][0, keypoint] / 4
    assert results['heatmaps'][keypoint, int(y), int(x)] == 1
    assert not results['heatmap_mask'][0, int(y), int(x)]
    assert results['heatmap_mask'].any()


def test_keypoint_less_than_a_heatmap_pixel_outside_is_kept(pipeline, sample):
    """The target of mmpose 0.x truncates towards zero: -0.75 heatmap pixels is pixel 0, -1.25 is outside."""
    sample['keypoints'][0, :2] = (-3, 10), (-5, 10)
    still = dict(AFFINE, rotate_factor=0, scale_factor=(1, 1), shift_factor=0)
    sample.update(img=np.zeros((64, 96, 3), np.uint8), img_shape=(64, 96), ori_shape=(64, 96))
    results = pipeline(still, dict(type='GenerateTarget', encoder=ENCODER))(sample)
    np.testing.assert_allclose(results['keypoints'][0, :2], [(-3, 10), (-5, 10)], atol=1e-4)
    assert results['keypoint_indices'][0, :2].tolist() == [[2 * 24, 1], [0, 0]]
    assert results['heatmaps'][0, 2, 0] == 1


def test_flipping_before_the_affine_is_refused(pipeline, sample):
    with pytest.raises(InputError, match=r'seven\.jpg: RandomFlip stands before BottomupAffine'):
        pipeline(dict(type='RandomFlip', prob=1.0), AFFINE)(sample)


def test_affine_is_uniform_and_translates_relative_to_the_scale(mmpose):
    from icconv_mm.tasks.pose import BottomupAffine

    affine = BottomupAffine(input_size=(64, 64))
    draws = [affine._get_transform_params() for _ in range(4000)]
    offset, scale, rotation = (np.array([np.ravel(draw[i]) for draw in draws]) for i in range(3))
    assert np.abs(offset / scale).max() <= 0.2
    for values, low, high in ((scale, 0.75, 1.5), (rotation, -30, 30), (offset / scale, -0.2, 0.2)):
        assert values.min() >= low and values.max() <= high
        quarters = np.histogram(values, bins=4, range=(low, high))[0] / values.size
        np.testing.assert_allclose(quarters, 0.25, atol=0.03)


def test_training_sample_is_packed(pipeline, sample):
    generate = dict(type='GenerateTarget', encoder=ENCODER)
    packed = pipeline(AFFINE, generate, dict(type='icconv_mm.PackMultiScaleInputs'))(sample)
    assert packed['inputs'].shape == (3, 64, 96)
    fields, labels = packed['data_samples'].gt_fields, packed['data_samples'].gt_instance_labels
    assert fields.heatmaps.shape == (17, 16, 24) and fields.heatmap_mask.shape == (1, 16, 24)
    assert labels.keypoint_indices.shape[1:] == (17, 2)
    assert labels.keypoint_indices.dtype == torch.int64
    assert 'category_id' not in packed['data_samples']


def test_image_without_people(pipeline, sample):
    for key in ('keypoints', 'keypoints_visible', 'bbox', 'bbox_score', 'area'):
        sample[key] = sample[key][:0]
    flip = dict(type='RandomFlip', prob=1.0)
    generate = dict(type='GenerateTarget', encoder=ENCODER)
    packed = pipeline(AFFINE, flip, generate, dict(type='icconv_mm.PackMultiScaleInputs'))(sample)
    assert not packed['data_samples'].gt_fields.heatmaps.any()
    assert packed['data_samples'].gt_instance_labels.keypoint_indices.shape == (0, 17, 2)


def test_pyramid_is_packed_as_a_list(pipeline, sample):
    resize = dict(type='icconv_mm.MultiScaleResize', input_size=(64, 64), scales=[0.5, 2, 1], size_divisor=32)
    packed = pipeline(resize, dict(type='icconv_mm.PackMultiScaleInputs'))(sample)
    assert [tuple(image.shape) for image in packed['inputs']] == [(3, 128, 256), (3, 64, 128), (3, 32, 64)]
    assert all(image.dtype == torch.uint8 for image in packed['inputs'])
    meta = packed['data_samples'].metainfo
    assert meta['test_scales'] == (2, 1, 0.5) and meta['input_size'] == (128, 64) and meta['img_shape'] == (64, 128)
    assert meta['input_center'].tolist() == [75, 50] and meta['input_scale'].tolist() == [200, 100]


def test_every_level_shows_the_dot_at_the_same_place(pipeline, sample):
    resize = dict(type='icconv_mm.MultiScaleResize', input_size=(64, 64), scales=[3, 2, 1])
    results = pipeline(resize)(_dot(sample))
    places = [_brightest(image) / image.shape[1::-1] for image in results['img']]
    np.testing.assert_allclose(places, np.broadcast_to(places[0], (3, 2)), atol=0.015)


@pytest.mark.parametrize('transform', [AFFINE, dict(type='icconv_mm.MultiScaleResize', input_size=(640, 640))])
def test_image_that_cannot_be_warped_is_named(pipeline, sample, transform):
    sample.update(img=np.zeros((1, 32767, 3), dtype=np.uint8), img_shape=(1, 32767))
    with pytest.raises(InputError, match=r'seven\.jpg: an image of 32767 x 1 pixels is too large: .* 32766;'):
        pipeline(transform)(sample)


def test_preprocessor_normalizes_each_image_of_each_level(pipeline, sample, mmpose):
    from icconv_mm.tasks.pose import MultiScaleDataPreprocessor

    resize = dict(type='icconv_mm.MultiScaleResize', input_size=(64, 64), scales=[1, 0.5], size_divisor=32)
    run = pipeline(resize, dict(type='icconv_mm.PackMultiScaleInputs'))
    tall = dict(sample, img=np.ascontiguousarray(sample['img'].transpose(1, 0, 2)))
    packed = [run(dict(sample)), run(tall)]
    preprocess = MultiScaleDataPreprocessor(mean=[1.0, 2, 3], std=[4.0, 5, 6], bgr_to_rgb=True)
    inputs = preprocess(pseudo_collate(packed))['inputs']
    assert isinstance(inputs, tuple)
    for got, item in zip(inputs, packed):
        assert len(got) == len(item['inputs']) == 2
        for image, raw in zip(got, item['inputs']):
            expected = raw[[2, 1, 0]].float() - torch.tensor([1.0, 2, 3]).view(3, 1, 1)
            torch.testing.assert_close(image, expected / torch.tensor([4.0, 5, 6]).view(3, 1, 1))


def test_preprocessor_stacks_training_batches(mmpose, sample, pipeline):
    from icconv_mm.tasks.pose import MultiScaleDataPreprocessor

    packed = pipeline(AFFINE, dict(type='icconv_mm.PackMultiScaleInputs'))(sample)
    batch = MultiScaleDataPreprocessor(mean=[1.0, 2, 3], std=[4.0, 5, 6])(
        pseudo_collate([packed, packed]), training=True
    )
    assert batch['inputs'].shape == (2, 3, 64, 96)
