"""Detectors without maps at stride 4: what a config for images says of them, a training, and an exported file."""

import labelled
import numpy as np
import pytest
import torch
from skips import EXPORTS

pytest.importorskip('mmdet')

from icconv_mm import apis
from icconv_mm.app.runs.begin import begin
from icconv_mm.app.training.own_data import config_for
from icconv_mm.app.training.own_data_text import anchors, strides_of
from icconv_mm.errors import ArgumentError

QUICK = dict(backbone='small_s8', pretrained='none', size=64, epochs=1, say=lambda line: None)


def test_all_parts_of_a_detector_have_the_strides_of_its_maps(tmp_path):
    cfg = config_for(labelled.masks(tmp_path / 'data'), 'detection', work_dir=tmp_path / 'run', **QUICK)
    model = cfg.model
    assert cfg.strides == [8, 16, 32, 64] == model.rpn_head.anchor_generator.strides
    assert model.roi_head.bbox_roi_extractor.featmap_strides == [8, 16, 32] and model.neck.num_outs == 4
    assert model.roi_head.bbox_head.reg_class_agnostic
    assert model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio == 1
    maps = begin(cfg).build_model().extract_feat(torch.zeros(2, 3, 128, 192))
    assert [tuple(feature.shape[-2:]) for feature in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_usual_backbones_keep_their_strides(tmp_path):
    options = dict(QUICK, backbone='small')
    model = config_for(labelled.masks(tmp_path / 'data'), 'instance', work_dir=tmp_path / 'run', **options).model
    assert model.rpn_head.anchor_generator.strides == [4, 8, 16, 32, 64] and model.neck.num_outs == 5
    extractors = model.roi_head.bbox_roi_extractor, model.roi_head.mask_roi_extractor
    assert all(extractor.featmap_strides == [4, 8, 16, 32] for extractor in extractors)
    assert not model.roi_head.bbox_head.reg_class_agnostic


def test_the_smallest_anchors_fit_the_smallest_objects():
    """Anchors are scales times strides: at the least stride, at most 1.3 times what a twentieth of the objects are."""
    for pixels, expected in ((40, 32), (20, 22.4), (13, 16), (9, 11.2), (4, 8)):
        (scale,) = anchors(np.full((50, 2), pixels / 640), 640, 8)['scales']
        assert 8 * scale == pytest.approx(expected)
    assert strides_of(dict(strides=(2, 2, 2, 2)))[0] == 8 and strides_of(dict(strides=(1, 2, 2, 2)))[0] == 4


@pytest.mark.parametrize(('task', 'write'), [('pose', labelled.deeplabcut), ('all', labelled.masks)])
def test_tasks_that_need_fine_maps_refuse_it(tmp_path, task, write):
    with pytest.raises(ArgumentError, match=f'backbone: small_s8 has no map at stride 4, which the task {task} needs'):
        config_for(write(tmp_path / 'data'), task, work_dir=tmp_path / 'run', **QUICK)


@pytest.mark.slow
@pytest.mark.skipif(not EXPORTS, reason='this torch is too old for exports')
@pytest.mark.parametrize('task', ['detection', 'instance'])
def test_it_trains_and_leaves_as_one_file(tmp_path, task):
    """The file finds what the model finds: the comparison raises an error otherwise."""
    pytest.importorskip('onnxruntime')
    cfg = config_for(labelled.masks(tmp_path / 'data'), task, work_dir=tmp_path / 'run', **dict(QUICK, size=128))
    runner = apis.train(cfg)
    assert runner.epoch == 1
    checkpoint = str(tmp_path / 'run' / 'epoch_1.pth')
    report = apis.export(cfg.filename, checkpoint, out=tmp_path / 'network.onnx', fixed=(128, 128))
    assert report['check']['images'] > 0 and report['check']['missing'] == 0
    assert report['layers'] == 16
