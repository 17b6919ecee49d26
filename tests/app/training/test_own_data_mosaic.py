"""Mosaics in the written configs of detectors."""

import labelled
import numpy as np
import pytest

pytest.importorskip('mmdet')

from mmengine.registry import DATASETS, init_default_scope

from icconv_mm.app.training import own_data_text
from icconv_mm.app.training.own_data import config_for


def test_four_images_are_put_together_until_the_last_epochs(tmp_path, monkeypatch):
    """Of few images, each process would put together few or none."""
    data, options = (
        labelled.voc(tmp_path / 'data'),
        dict(backbone='small', pretrained='none', size=64, patience=3, say=lambda line: None),
    )
    (stopping,) = config_for(data, 'detection', work_dir=tmp_path / 'few', **options).custom_hooks
    assert stopping.type == 'EarlyStoppingHook'
    monkeypatch.setattr(own_data_text, '_LEAST_OF_MOSAIC', 2)
    monkeypatch.setattr(own_data_text, '_WHOLE', 9)
    cfg = config_for(data, 'detection', work_dir=tmp_path / 'run', **options)
    last, stopping = cfg.custom_hooks
    assert (last.type, last.epochs, stopping.type) == ('icconv_mm.LastEpochsHook', 5, 'EarlyStoppingHook')
    assert last.pipeline == cfg.train_pipeline
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    items = [dataset[number % len(dataset)] for number in range(64)][4:]
    assert all(item['inputs'].shape == (3, 64, 64) for item in items)
    boxes = [item['data_samples'].gt_instances.bboxes.tensor for item in items]
    assert max(map(len, boxes)) > max(len(dataset.get_data_info(number)['instances']) for number in (0, 1))
    sides = np.concatenate([image_boxes[:, 2:] - image_boxes[:, :2] for image_boxes in boxes])
    assert sides.min() >= 2  # the loss of a sliver without an area is not finite
