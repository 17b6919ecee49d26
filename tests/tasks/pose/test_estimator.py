"""Head and estimator."""

import weakref

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData, PixelData

from icconv_mm.errors import InputError


def _training_batch(people=(2, 0), num_keypoints=17, size=64):
    from mmpose.structures import PoseDataSample

    samples = []
    for count in people:
        sample = PoseDataSample()
        area = (size // 4) ** 2
        sample.gt_fields = PixelData(
            heatmaps=torch.rand(num_keypoints, size // 4, size // 4),
            heatmap_mask=torch.ones(1, size // 4, size // 4, dtype=torch.bool),
        )
        indices = torch.stack(
            [torch.randint(0, area, (count, num_keypoints)), torch.ones(count, num_keypoints).long()], -1
        )
        sample.gt_instance_labels = InstanceData(keypoint_indices=indices)
        samples.append(sample)
    return torch.randn(len(people), 3, size, size), samples


def _pyramids(coco_meta, shapes, scales=(1,), size_divisor=32, **meta):
    from icconv_mm.tasks.pose import MultiScaleResize, PackMultiScaleInputs

    resize, pack = MultiScaleResize((64, 64), list(scales), size_divisor), PackMultiScaleInputs()
    rng = np.random.RandomState(0)
    items = []
    for number, (height, width) in enumerate(shapes):
        image = rng.randint(0, 256, (height, width, 3), dtype=np.uint8)
        info = dict(coco_meta, img=image, img_id=number, id=[], ori_shape=(height, width), img_path=f'{number}.jpg')
        items.append(pack(resize({**info, **meta})))
    return items


@torch.no_grad()
def _predict(model, items):
    return [sample.pred_instances for sample in model.test_step(pseudo_collate(items))]


def _assert_same(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected):
        assert a.keypoints.shape == b.keypoints.shape
        for name in ('keypoints', 'keypoint_scores', 'bbox_scores'):
            np.testing.assert_allclose(a[name], b[name], rtol=0, atol=1e-4)


def test_the_finest_level_is_that_of_the_whole_pyramid():
    from mmpose.models.necks import FPN

    from icconv_mm.tasks.pose import FinestFPN

    whole, finest = FPN([4, 8], 8, num_outs=2), FinestFPN([4, 8], 8)
    finest.load_state_dict({key: whole.state_dict()[key] for key in finest.state_dict()})
    levels = [torch.randn(1, 4, 16, 16), torch.randn(1, 8, 8, 8)]
    output = finest(levels)[0]
    assert torch.equal(output, whole(levels)[0])
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in finest.parameters())


def test_losses_train_every_parameter(model):
    inputs, samples = _training_batch()
    losses = model.train()(inputs, samples, mode='loss')
    assert set(losses) == {'loss_kpt', 'loss_push', 'loss_pull'}
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize('people', [(0, 0), (1,), (45, 3)])
def test_any_number_of_people(model, people):
    inputs, samples = _training_batch(people)
    losses = model(inputs, samples, mode='loss')
    assert all(torch.isfinite(value) for value in losses.values())
    if not any(people):
        assert losses['loss_push'] == losses['loss_pull'] == 0


def test_losses_under_autocast(model):
    inputs, samples = _training_batch()
    expected = model(inputs, samples, mode='loss')
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(inputs, samples, mode='loss')
    for name, value in losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=0.05, atol=1e-4)


def test_wrong_number_of_keypoints_is_named(model):
    inputs, samples = _training_batch(num_keypoints=16)
    with pytest.raises(InputError, match=r'\[17, 16, 16\].*but the targets have \[16, 16, 16\].*num_keypoints'):
        model(inputs, samples, mode='loss')


def test_one_tag_map_for_all_keypoints(model_cfg):
    from mmpose.registry import MODELS

    model_cfg['head']['tag_per_keypoint'] = False
    model = MODELS.build(model_cfg)
    assert model.head.final_layer.out_channels == 18
    inputs, samples = _training_batch()
    assert all(torch.isfinite(value) for value in model(inputs, samples, mode='loss').values())


def test_several_tag_dimensions_are_refused(model_cfg):
    from mmpose.registry import MODELS

    model_cfg['head']['tag_dim'] = 2
    with pytest.raises(InputError, match='tag_dim must be 1'):
        MODELS.build(model_cfg)


SHAPES = [(64, 96), (96, 64), (50, 90), (64, 96)]


@pytest.mark.parametrize('scales', [(1,), (2, 1, 0.5)])
def test_result_does_not_depend_on_the_batch(model, coco_meta, scales):
    items = _pyramids(coco_meta, SHAPES, scales)
    together = _predict(model, items)
    assert max(len(people.bbox_scores) for people in together) > 0
    _assert_same(together, [_predict(model, [item])[0] for item in items])


def test_images_of_one_size_with_different_base_sizes(model, coco_meta):
    """At size_divisor 8 these have bases of 64 x 72 and 64 x 64, and both go to 64 x 64, a multiple of the stride."""
    items = _pyramids(coco_meta, [(64, 72), (64, 64), (64, 72)], size_divisor=8)
    assert {tuple(item['inputs'][0].shape) for item in items} == {(3, 64, 64)}
    assert {item['data_samples'].input_size for item in items} == {(72, 64), (64, 64)}
    _assert_same(_predict(model, items), [_predict(model, [item])[0] for item in items])


def test_head_refuses_samples_of_several_base_sizes(model, coco_meta):
    samples = [item['data_samples'] for item in _pyramids(coco_meta, [(64, 72), (64, 64)], size_divisor=8)]
    feats = [((torch.rand(2, 64, 2, 2),), None)]
    with pytest.raises(ValueError, match=r'must have one input_size, got \[\(64, 64\), \(72, 64\)\]'):
        model.head.predict(feats, samples)


@pytest.mark.parametrize('levels', [0, 1, 3])
def test_number_of_sizes_must_be_that_of_the_scales(model, coco_meta, levels):
    (item,) = _pyramids(coco_meta, [(64, 96)], (2, 1))
    item['inputs'] = [item['inputs'][0]] * levels
    if levels:
        with pytest.raises(InputError, match=rf'0\.jpg comes at {levels} sizes, but its test_scales are \[2, 1\]'):
            _predict(model, [item])
    feats = [((torch.rand(1, 64, 2, 2),), None)] * levels
    count = 'more than 2' if levels > 2 else levels
    with pytest.raises(ValueError, match=rf'expected features of 2 scales, \[2, 1\], got {count}'):
        model.head.predict(feats, [item['data_samples']])


def test_a_batch_tensor_is_a_pyramid_of_one_level(model, coco_meta):
    items = _pyramids(coco_meta, [(64, 96)] * 2)
    expected = _predict(model, items)
    for item in items:
        (item['inputs'],) = item['inputs']
    _assert_same(_predict(model, items), expected)


def test_flipped_image_gives_flipped_people(model, coco_meta):
    """With the flip test, image and flipped image have the same heatmaps but for left and right."""
    item = _pyramids(coco_meta, [(64, 96)])[0]
    flipped = dict(item, inputs=[image.flip(-1) for image in item['inputs']])
    model.test_cfg['output_heatmaps'] = True
    with torch.no_grad():
        first, second = (model.test_step(pseudo_collate([i]))[0].pred_fields.heatmaps.clone() for i in (item, flipped))
    torch.testing.assert_close(second.flip(-1)[coco_meta['flip_indices']], first, rtol=1e-4, atol=1e-5)


def test_flip_test_without_flip_indices(model, coco_meta):
    items = _pyramids(coco_meta, [(64, 96)], flip_indices=None)
    with pytest.raises(InputError, match=r"flip_test needs to know.*0\.jpg has no 'flip_indices'"):
        _predict(model, items)
    model.test_cfg['flip_test'] = False
    assert len(_predict(model, items)) == 1


def test_nan_heatmaps_are_an_error(model, coco_meta):
    torch.nn.init.constant_(model.head.final_layer.bias, float('nan'))
    with pytest.raises(InputError, match='heatmap of keypoint 0 is not finite'):
        _predict(model, _pyramids(coco_meta, [(64, 96)]))


@pytest.mark.parametrize('shape', [(1, 1), (2, 3), (5, 31)])
def test_image_smaller_than_the_stride(model, coco_meta, shape):
    people = _predict(model, _pyramids(coco_meta, [shape], (2, 1, 0.5)))[0]
    assert people.keypoints.shape[1:] == (17, 2)


def test_keypoints_come_back_to_the_image(model, coco_meta):
    """A peak that the head invents at a known place of the map is found at that place of the image."""
    maps = torch.zeros(1, 34, 16, 24)
    maps[0, :17, 4, 18], maps[0, :17, 5, 19] = 1.0, 0.5  # upsampled, a lone pixel would have four equal peaks
    model.head.final_layer = torch.nn.Identity()
    model.head.deconv_layers = torch.nn.Module()
    model.head.deconv_layers.forward = lambda x: maps
    model.test_cfg.update(flip_test=False)
    people = _predict(model, _pyramids(coco_meta, [(128, 192)]))[0]
    # Heatmap pixel (18, 4) covers input pixels 72..75 and 16..19, image pixels 144..151 and 32..39.
    assert len(people.keypoints) == 1
    assert ((people.keypoints > [144, 32]) & (people.keypoints < [152, 40])).all()


def test_maps_at_the_resolution_of_the_network(model, coco_meta):
    model.test_cfg.update(restore_heatmap_size=False, output_heatmaps=True)
    items = _pyramids(coco_meta, [(128, 192)], (2, 1))
    with torch.no_grad():
        (sample,) = model.test_step(pseudo_collate(items))
    assert sample.pred_fields.heatmaps.shape == (17, 32, 48)  # the largest scale's
    assert sample.pred_fields.tags.shape == (34, 32, 48)
    people = sample.pred_instances.keypoints[sample.pred_instances.keypoint_scores > 0]
    assert (people >= 0).all() and (people <= [192, 128]).all()


def test_only_one_scale_is_in_memory(model, coco_meta, monkeypatch):
    """When a scale starts, the features of the larger scales before it are gone."""
    seen, alive, extract = [], [], model.extract_feat

    def watched(inputs):
        alive.append([size for size, ref in seen if ref() is not None and size != inputs.shape[-2:]])
        feats = extract(inputs)
        seen.extend((inputs.shape[-2:], weakref.ref(feat)) for feat in feats)
        return feats

    monkeypatch.setattr(model, 'extract_feat', watched)
    _predict(model, _pyramids(coco_meta, [(64, 96)], (2, 1, 0.5)))
    assert len(seen) == 6 and alive == [[]] * 6
