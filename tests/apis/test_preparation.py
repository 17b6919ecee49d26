"""What a run changes in its config, and the changes of ``apis/config.py`` that purposes share."""

import pytest
from mmengine.config import Config

from icconv_mm.apis.config import model_without_own_weights, replace_image_loading, set_iterations
from icconv_mm.apis.inference import inference_transforms
from icconv_mm.apis.preparation import prepare_test, prepare_training
from icconv_mm.apis.search_pipeline import comparison_config
from icconv_mm.errors import ArgumentError, InputError, MissingFileError
from icconv_mm.tasks.base import TaskAdapter

LOADING = 'icconv_mm.LoadImageFromFile'


def dataset(**settings) -> dict:
    return {'type': 'CocoDataset', 'pipeline': [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}], **settings}


@pytest.fixture
def cfg(tmp_path, monkeypatch) -> Config:
    monkeypatch.setattr('icconv_mm.apis.preparation.get_device', lambda: 'cpu')
    monkeypatch.setattr('icconv_mm.apis.preparation.is_cuda_available', lambda: False)
    backbone = {'type': 'ResNet', 'norm_cfg': {'type': 'SyncBN'}, 'init_cfg': {'type': 'Pretrained'}}
    cfg = Config(
        {
            'default_scope': 'mmdet',
            'model': {'type': 'FasterRCNN', 'backbone': backbone, 'pretrained': 'x.pth'},
            'train_dataloader': {'dataset': {'type': 'RepeatDataset', 'dataset': dataset()}},
            'val_dataloader': {'dataset': dataset()},
            'test_dataloader': {'dataset': {'type': 'ConcatDataset', 'datasets': [dataset(), dataset()]}},
            'test_evaluator': {'type': 'CocoMetric'},
            'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 300},
            'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 0.1}},
            'visualizer': {'type': 'DetLocalVisualizer', 'name': 'visualizer'},
            'custom_hooks': [{'switch_pipeline': [{'type': 'mmpose.LoadImage', 'to_float32': True}]}],
            'default_hooks': {'checkpoint': {'interval': 5}},
            'work_dir': str(tmp_path),
        }
    )
    (tmp_path / 'weights.pth').touch()
    return cfg


def loads(cfg) -> list[str]:
    """How images are loaded in training, validation and the parts of the test."""
    parts = (cfg.train_dataloader.dataset.dataset, cfg.val_dataloader.dataset, *cfg.test_dataloader.dataset.datasets)
    return [part.pipeline[0].type for part in parts]


def test_image_loading_is_replaced_in_every_pipeline(cfg):
    """Of a ``Config`` as a whole, which is no dict, as of its parts."""
    replace_image_loading(cfg)
    assert loads(cfg) == [LOADING] * 4
    assert cfg.custom_hooks[0].switch_pipeline == [{'type': LOADING, 'to_float32': True}]
    assert cfg.val_dataloader.dataset.pipeline[1].type == 'LoadAnnotations'
    replace_image_loading(cfg.train_dataloader, skip_bad=True)
    assert cfg.train_dataloader.dataset.dataset.pipeline[0] == {'type': LOADING, 'skip_bad': True}
    assert cfg.val_dataloader.dataset.pipeline[0] == {'type': LOADING}


def test_training(cfg):
    pytest.importorskip('mmdet')
    task = prepare_training(cfg, amp=True, skip_bad_images=True)
    assert task.library == 'mmdet' and loads(cfg) == [LOADING] * 4
    assert [part.pipeline[0].get('skip_bad') for part in (cfg.train_dataloader.dataset.dataset,)] == [True]
    assert 'skip_bad' not in cfg.val_dataloader.dataset.pipeline[0]  # validation without an image is another metric
    assert cfg.model.backbone.norm_cfg.type == 'BN'  # torch's SyncBatchNorm refuses CPU tensors
    assert cfg.optim_wrapper.type == 'icconv_mm.CPUAmpOptimWrapper'
    assert 'name' not in cfg.visualizer and cfg.launcher == 'none' and cfg.val_dataloader
    prepare_training(cfg, validate=False)
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None
    for options, name in ((dict(resume='gone.pth'), 'resume'), ({}, 'load_from')):
        with pytest.raises(MissingFileError, match=rf'^{name}: no such file: gone\.pth'):
            prepare_training(Config({**cfg.to_dict(), 'load_from': 'gone.pth'}), **options)
    with pytest.raises(InputError, match='cannot be trained: it has no train_cfg, optim_wrapper'):
        prepare_training(Config({**cfg.to_dict(), 'train_cfg': None, 'optim_wrapper': {}}))


@pytest.mark.parametrize(
    ('key', 'expected'),
    [('model', 'a dict'), ('default_hooks', 'a dict'), ('visualizer', 'a dict'), ('load_from', 'a path'),
     ('train_dataloader.dataset', 'a dict')],
)  # fmt: skip
def test_a_number_in_the_place_of_a_part(cfg, key, expected):
    cfg.merge_from_dict({key: 3})
    with pytest.raises(InputError, match=f': {key} is 3, expected {expected}$'):
        prepare_training(cfg)


@pytest.mark.parametrize('value', [0, -1, 'many', None], ids=repr)
@pytest.mark.parametrize('key', ['max_iters', 'max_epochs', 'val_interval'])
def test_a_schedule_that_trains_or_validates_nothing(cfg, key, value):
    pytest.importorskip('mmdet')
    cfg.train_cfg[key], cfg.val_cfg = value, {'type': 'ValLoop'}
    with pytest.raises(InputError, match=rf': train_cfg\.{key} is {value!r}, expected a number above 0$'):
        prepare_training(cfg)
    if key == 'val_interval':
        prepare_training(cfg, validate=False)


def test_processes_that_nobody_started(cfg, monkeypatch):
    pytest.importorskip('mmdet')
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ArgumentError, match=r'^launcher: pytorch: the process was not started by torchrun \(.*RANK'):
        prepare_training(cfg, launcher='pytorch')


def test_test(cfg, tmp_path):
    pytest.importorskip('mmdet')
    checkpoint = str(tmp_path / 'weights.pth')
    prepare_test(cfg, checkpoint, out='x.pkl', show_dir='shown')
    assert loads(cfg) == [LOADING] * 4 and cfg.load_from == checkpoint and cfg.resume is False
    assert [metric['type'] for metric in cfg.test_evaluator] == ['CocoMetric', 'DumpDetResults']
    assert cfg.default_hooks.visualization.test_out_dir.endswith('/shown')
    cfg.test_evaluator = {'type': 'CocoMetric'}
    prepare_test(cfg, checkpoint, out='x.json', out_item='metrics')
    assert cfg.test_evaluator == {'type': 'CocoMetric'}
    with pytest.raises(InputError, match=r'out: expected a name that ends in \.json, got x\.pkl'):
        prepare_test(cfg, checkpoint, out='x.pkl', out_item='metrics')
    with pytest.raises(InputError, match='out_item: nothing is called metric; there are: pred, metrics'):
        prepare_test(cfg, checkpoint, out='x.json', out_item='metric')
    with pytest.raises(MissingFileError, match=r'checkpoint: no such file: gone\.pth'):
        prepare_test(cfg, 'gone.pth')


def test_augmented_test_below_wrappers(cfg, tmp_path):
    pytest.importorskip('mmdet')
    prepare_test(cfg, str(tmp_path / 'weights.pth'), tta=True)
    for part in cfg.test_dataloader.dataset.datasets:
        assert [transform.type for transform in part.pipeline] == [LOADING, 'TestTimeAug']


def test_model_for_a_checkpoint_loads_no_weights_of_its_own(cfg):
    cfg.data_preprocessor = {'num_classes': 3}  # mmpretrain keeps it beside the model
    backbone = {'type': 'ResNet', 'norm_cfg': {'type': 'SyncBN'}}
    expected = {'type': 'FasterRCNN', 'backbone': backbone, 'data_preprocessor': {'num_classes': 3}}
    assert model_without_own_weights(cfg) == expected


def test_inference_takes_pipeline_and_classes_from_below_wrappers(cfg):
    for part, name in zip(cfg.test_dataloader.dataset.datasets, ('cat', 'dog')):
        part.metainfo = {'classes': (name,), 'palette': [(1, 2, 3)]}
    assert inference_transforms(cfg) == [{'type': 'LoadImageFromFile'}]
    assert TaskAdapter().dataset_meta({}, cfg) == {'classes': ('cat',), 'palette': [(1, 2, 3)]}
    del cfg.test_dataloader.dataset.datasets[0].pipeline, cfg.test_dataloader.dataset.datasets[1].pipeline
    with pytest.raises(InputError, match='no pipeline in the dataset of the test_dataloader'):
        inference_transforms(cfg)


def test_iterations_stretch_the_schedule(cfg):
    cfg.param_scheduler = [
        {'type': 'LinearLR', 'begin': 0, 'end': 30},
        {'type': 'CosineAnnealingLR', 'begin': 30, 'end': 300, 'T_max': 270},
    ]
    tiny = Config(cfg.to_dict())
    set_iterations(cfg, 100)
    assert cfg.train_cfg.max_iters == 100
    assert [(scheduler.begin, scheduler.end) for scheduler in cfg.param_scheduler] == [(0, 10), (10, 100)]
    assert cfg.param_scheduler[1].T_max == 90
    set_iterations(tiny, 1)
    assert all(scheduler.end > scheduler.begin for scheduler in tiny.param_scheduler)
    with pytest.raises(ValueError, match='at least one iteration, got 0'):
        set_iterations(cfg, 0)


def test_config_of_a_comparison(cfg, tmp_path):
    cfg.model.backbone.supernet_d_max = 2
    supernet = comparison_config(cfg, tmp_path / 's', seed=3)
    searched = comparison_config(cfg, tmp_path / 'p', seed=4, pattern='dense', start=tmp_path / 'w.pth')
    assert (supernet.model.backbone.supernet_d_max, supernet.get('load_from')) == (2, None)
    assert searched.model.backbone.pattern == 'dense' and 'supernet_d_max' not in searched.model.backbone
    assert (searched.load_from, searched.randomness.seed) == (str(tmp_path / 'w.pth'), 4)
    assert (searched.work_dir, searched.train_cfg.val_interval) == (str(tmp_path / 'p'), 300)
    assert cfg.default_hooks.checkpoint and searched.default_hooks.checkpoint is None
