"""The label that a network for segmentation maps ignores, in heads, paddings, maps and metrics."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')

from mmengine.config import ConfigDict
from mmengine.structures import BaseDataElement, PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from icconv_mm.app.adapters import ignored
from icconv_mm.app.adapters.ignored import ignore_index
from icconv_mm.app.adapters.multitask import Adapter as JointAdapter
from icconv_mm.app.adapters.semantic import Adapter
from icconv_mm.errors import InputError
from icconv_mm.tasks.multitask.data import MultiTaskDataPreprocessor

LOSSES = {
    'cross entropy': dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True),
    'written': [
        dict(type='icconv_mm.WeightedCrossEntropyLoss', class_weight=[1.0, 2.0, 3.0]),
        dict(type='icconv_mm.LovaszSoftmaxLoss', loss_weight=0.5),
    ],
}


@MODELS.register_module(force=True)
class PlainBackbone(nn.Module):
    """One convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return (self.conv(x),)


def network(loss, decode=(), auxiliary=None, **preprocessor):
    head = dict(type='mmseg.FCNHead', in_channels=4, in_index=0, channels=4, num_convs=0, concat_input=False)
    head |= dict(num_classes=3, dropout_ratio=0.0, loss_decode=LOSSES[loss], **dict(decode))
    preprocessor = dict(type='mmseg.SegDataPreProcessor', size_divisor=32, **preprocessor)
    model = dict(
        type='mmseg.EncoderDecoder',
        backbone=dict(type='PlainBackbone'),
        data_preprocessor=preprocessor,
        decode_head=head,
    )
    if auxiliary is not None:
        model['auxiliary_head'] = {**copy.deepcopy(head), **auxiliary}
        if 'ignore_index' not in auxiliary:
            model['auxiliary_head'].pop('ignore_index', None)
    return ConfigDict(model)


def batch(values=(255,)):
    """Returns images of three sizes with labels 0 to 2, a tenth of which is ignored, by one or another value."""
    rng = np.random.default_rng(0)
    inputs, samples = [], []
    for size in ((24, 30), (32, 20), (17, 29)):
        labels = rng.integers(0, 3, size)
        for value in values:
            labels[rng.random(size) < 0.1] = value
        inputs.append(torch.from_numpy(rng.normal(size=(3, *size)).astype(np.float32)))
        samples.append(
            SegDataSample(gt_sem_seg=PixelData(data=torch.from_numpy(labels)[None]), metainfo={'img_path': 'a'})
        )
    return {'inputs': inputs, 'data_samples': samples}


def losses(cfg, data, metrics=()):
    """Returns the losses of a training step by the hooks of a run."""
    hooks = Adapter().hooks(cfg, list(metrics))
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    for hook in hooks:
        hook.before_run(SimpleNamespace(model=model))
    data = model.data_preprocessor(copy.deepcopy(data), True)
    return {key: value.item() for key, value in model(**data, mode='loss').items() if 'loss' in key}, data


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('auxiliary', [None, {}, {'ignore_index': 0}], ids=str)
@pytest.mark.parametrize('preprocessor', [{}, {'seg_pad_val': 0}], ids=str)
def test_a_class_that_is_ignored_is_learned_nowhere(loss, auxiliary, preprocessor):
    """The losses are those of maps that have 255 in its place; so are padded pixels, and 255 in the maps."""
    data = batch()
    values, seen = losses(network(loss, {'ignore_index': 0}, auxiliary, **preprocessor), data)
    for sample in data['data_samples']:
        sample.gt_sem_seg.data[sample.gt_sem_seg.data == 0] = 255
    expected, plain = losses(network(loss, {}, None if auxiliary is None else {}), data)
    count = (2 if loss == 'written' else 1) * (1 if auxiliary is None else 2)
    assert values == pytest.approx(expected, rel=1e-6) and len(values) == count
    for one, other in zip(seen['data_samples'], plain['data_samples']):
        assert ((one.gt_sem_seg.data == 0) == (other.gt_sem_seg.data == 255)).all()
        assert one.gt_sem_seg.data.max() == 2


@pytest.mark.parametrize('value', [3, 11, 254, -1])
def test_a_label_beyond_the_classes(value):
    """Maps have it, or 255, or both; padding has 255."""
    data = batch((value, 255))
    values, _ = losses(network('written', {'ignore_index': value}), data)
    for sample in data['data_samples']:
        sample.gt_sem_seg.data[sample.gt_sem_seg.data == value] = 255
    assert values == pytest.approx(losses(network('written'), data)[0], rel=1e-6)


def test_nothing_changes_without_an_ignore_index():
    cfg, metric = network('written', auxiliary={}), {'type': 'IoUMetric'}
    before = copy.deepcopy(cfg)
    assert Adapter().hooks(cfg, [metric]) == [] and cfg == before and metric == {'type': 'IoUMetric'}
    assert Adapter().hooks(network('written', {'ignore_index': 255}), [metric]) == []
    assert ignore_index({}) == 255 and ignore_index(network('written', {'ignore_index': None})) == 255


def test_heads_that_differ_are_refused():
    with pytest.raises(
        InputError, match=r'^model\.decode_head\.ignore_index is 0 and model\.auxiliary_head\.ignore_ind'
    ):
        Adapter().hooks(network('written', {'ignore_index': 0}, {'ignore_index': 255}), [])
    # that of borders has labels of its own
    borders = network('written', {'ignore_index': 0}, {'type': 'STDCHead', 'ignore_index': 255})
    assert ignore_index(borders) == 0


@pytest.mark.parametrize(
    ('given', 'follows', 'measured'), [({}, 0, 0), ({'ignore_index': 255}, 255, 255), ({'ignore_index': 1}, 1, 1)]
)
def test_metrics_without_a_label_of_their_own_follow(given, follows, measured, monkeypatch):
    said = []
    monkeypatch.setattr(ignored, 'print_log', lambda text, logger: said.append(text))
    metrics = [{'type': 'IoUMetric', **given}, {'type': 'Other'}]
    for _ in range(2):  # as a config, and as the one that a run has written
        (hook,) = Adapter().hooks(network('written', {'ignore_index': 0}), metrics)
    assert metrics == [{'type': 'IoUMetric', 'ignore_index': follows}, {'type': 'Other'}]
    assert (hook.learned, hook.measured) == (0, measured)
    assert [text[:18] for text in said] == ['class 0 is ignored'] * (not given)


def test_maps_of_a_validation():
    """Pixels of 255 are what the metric ignores, which class 0 is for the heads, and 1 for the metric."""
    model = network('written', {'ignore_index': 0})
    hooks = Adapter().hooks(model, [{'type': 'IoUMetric', 'ignore_index': 1}])
    model.data_preprocessor.pop('size_divisor')
    built = MODELS.build(model)
    hooks[0].before_run(SimpleNamespace(model=built))
    data = batch()
    before = data['data_samples'][0].gt_sem_seg.data.clone()
    data = {key: value[:1] for key, value in data.items()}
    seg_map = built.data_preprocessor(data, training=False)['data_samples'][0].gt_sem_seg.data
    assert (seg_map == before.where(before != 255, 1)).all() and (before == 255).any()


def test_a_network_for_several_tasks():
    segmentor = network('written', {'ignore_index': 0})
    cfg = ConfigDict(model=dict(tasks=dict(map=segmentor)))
    metric = dict(type='icconv_mm.TaskMetric', task='map', metric=dict(type='mmseg.IoUMetric'))
    (hook,) = JointAdapter({'map': 'mmseg'}).hooks(cfg.model, [metric])
    assert metric['metric']['ignore_index'] == 0 and hook.task == 'map'
    preprocessor = MultiTaskDataPreprocessor(mean=[0.0] * 3, std=[1.0] * 3, pad_size_divisor=32)
    hook.before_run(SimpleNamespace(model=nn.ModuleDict({'data_preprocessor': preprocessor})))
    data = batch()
    samples = [BaseDataElement(map=sample) for sample in data['data_samples']] + [BaseDataElement()]
    data = {'inputs': [*data['inputs'], torch.zeros(3, 8, 8)], 'data_samples': samples}
    data_samples = preprocessor(data, True)['data_samples']
    assert all(
        sample.map.gt_sem_seg.data.max() == 2 and sample.map.gt_sem_seg.shape == (32, 32) for sample in data_samples[:3]
    )
