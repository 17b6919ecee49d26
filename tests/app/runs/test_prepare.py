"""What a run changes in its config, and what must be there before it."""

import pytest
from mmengine.config import Config
from torch import nn

from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.app.runs.begin import begin
from icconv_mm.app.runs.lengths import set_length
from icconv_mm.app.runs.prepare import Predicting, Testing, Training, prepare
from icconv_mm.datasets.checks import MissingDataError
from icconv_mm.errors import ArgumentError, InputError, MissingFileError

LOADING = 'icconv_mm.LoadImageFromFile'


def dataset(**settings) -> dict:
    return {'type': 'CocoDataset', 'pipeline': [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}], **settings}


@pytest.fixture
def cfg(tmp_path, monkeypatch) -> Config:
    monkeypatch.setattr('icconv_mm.app.runs.prepare.get_device', lambda: 'cpu')
    monkeypatch.setattr('icconv_mm.app.runs.prepare.is_cuda_available', lambda: False)
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
    pytest.importorskip('mmdet')
    prepare(begin(cfg), skip_bad_images=True)
    assert loads(cfg) == [LOADING] * 4
    switched = {'type': LOADING, 'to_float32': True, 'skip_bad': True}  # of the training, later
    assert cfg.custom_hooks[0].switch_pipeline == [switched]
    assert cfg.val_dataloader.dataset.pipeline[1].type == 'LoadAnnotations'
    assert cfg.train_dataloader.dataset.dataset.pipeline[0] == {'type': LOADING, 'skip_bad': True}
    assert cfg.val_dataloader.dataset.pipeline[0] == {'type': LOADING}  # without an image it is another metric


def files(tmp_path, **changes) -> dict:
    """A dataset whose folder, annotations and images are there, but for ``changes``."""
    (tmp_path / 'x').mkdir(exist_ok=True)
    (tmp_path / 'a.json').touch()
    return dataset(data_root=str(tmp_path), ann_file='a.json', data_prefix={'img': 'x/'}) | changes


def require(settings) -> None:
    part = 'val_evaluator' if 'metric' in str(settings) else 'train_dataloader'
    prepare(begin(Config({'default_scope': 'mmdet', part: settings})), part)


def test_files_that_are_there_or_elsewhere(tmp_path):
    pytest.importorskip('mmdet')
    require({'dataset': {'type': 'RepeatDataset', 'dataset': files(tmp_path)}})
    require({'dataset': files(tmp_path, data_root='s3://bucket/coco')})
    require({'dataset': files(tmp_path, ann_file='')})
    gone = {'dataset': dataset(data_root='gone')}
    begin(Config({'default_scope': 'mmdet', 'train_dataloader': gone}), purpose=Predicting())  # not read


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'data_root': '/nowhere/coco'}, 'data_root: no such folder: /nowhere/coco'),
        ({'data_root': 'data/none'}, r'data_root: no such folder: data/none \(in /'),
        ({'ann_file': 'b.json'}, r'ann_file: no such file: .*/b\.json'),
        ({'data_prefix': {'img': 'train2017/'}}, r"data_prefix\['img'\]: no such folder: .*/train2017"),
    ],
)
def test_missing_files_of_datasets(tmp_path, change, message):
    pytest.importorskip('mmdet')
    parts = [{'type': 'RepeatDataset', 'dataset': files(tmp_path, **change)}]
    with pytest.raises(MissingDataError, match=rf'^train_dataloader\.dataset\.datasets\.0\.dataset\.{message}'):
        require({'dataset': {'type': 'ConcatDataset', 'datasets': parts}})


def test_missing_files_of_metrics_and_weights(cfg):
    pytest.importorskip('mmdet')
    metric = {'type': 'mmdet.CocoMetric', 'ann_file': '/nowhere/a.json'}
    with pytest.raises(MissingDataError, match=r'^val_evaluator\.0\.metric\.ann_file: no such file: /nowhere/a\.json'):
        require([{'type': 'icconv_mm.TaskMetric', 'task': 'a', 'metric': metric}])
    cfg.model.backbone.init_cfg.checkpoint = 'gone.pth'
    with pytest.raises(MissingFileError, match=r'^model\.backbone\.init_cfg\.checkpoint: no such file: gone\.pth'):
        prepare(begin(cfg), 'model')


def test_data_behind_addresses():
    pytest.importorskip('mmseg')
    address = 'http://localhost/data'
    require({'dataset': dataset(ann_file=f'{address}/a.json', data_prefix={'img': address})})
    folders = {'type': 'BaseSegDataset', 'data_root': address, 'data_prefix': dict(img_path='a', seg_map_path='b')}
    with pytest.raises(InputError, match=rf'^train_dataloader\.dataset: {address}/b is no folder .*: give ann_file'):
        require({'dataset': folders})
    require({'dataset': {**folders, 'ann_file': 'names.txt'}})


def test_a_number_in_the_place_of_a_path():
    pytest.importorskip('mmdet')
    with pytest.raises(InputError, match=r"^train_dataloader\.dataset: .*not '?int"):
        require({'dataset': {'type': 'CocoDataset', 'data_root': 3}})


def test_training(cfg):
    pytest.importorskip('mmdet')
    begin(cfg, purpose=Training(amp=True))
    assert loads(cfg) == [LOADING] * 4
    assert cfg.model.backbone.norm_cfg.type == 'BN'  # torch's SyncBatchNorm refuses CPU tensors
    assert cfg.optim_wrapper.type == 'icconv_mm.CPUAmpOptimWrapper'
    assert 'name' not in cfg.visualizer and cfg.launcher == 'none' and cfg.val_dataloader
    begin(cfg, purpose=Training(validate=False))
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None
    for options, name in ((dict(resume='gone.pth'), 'resume'), ({}, 'load_from')):
        with pytest.raises(MissingFileError, match=rf'^{name}: no such file: gone\.pth'):
            begin(Config({**cfg.to_dict(), 'load_from': 'gone.pth'}), purpose=Training(**options))


@pytest.mark.parametrize('name', ['own.json', 'geometric_d4', 'absent.json', None])
def test_the_pattern_of_a_training_is_found_in_any_folder(cfg, name, tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    for file in ('own.json', 'geometric_d4'):
        (tmp_path / file).touch()
    cfg.model.backbone.pattern = name
    begin(cfg, purpose=Training())
    assert cfg.model.backbone.pattern == (str(tmp_path / name) if name == 'own.json' else name)


def test_nothing_to_resume(cfg, tmp_path, capsys):
    pytest.importorskip('mmdet')
    (tmp_path / 'weights.pth').touch()
    cfg.load_from, cfg.work_dir = str(tmp_path / 'weights.pth'), str(tmp_path / 'run')
    begin(cfg, purpose=Training(resume=True))
    assert 'no checkpoint to resume, the training starts at 0' in capsys.readouterr().err
    assert cfg.load_from == str(tmp_path / 'weights.pth') and not cfg.get('resume')


def test_processes_that_nobody_started(cfg, monkeypatch):
    pytest.importorskip('mmdet')
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ArgumentError, match=r'^launcher: pytorch: the process was not started by torchrun \(.*RANK'):
        begin(cfg, purpose=Training(launcher='pytorch'))


def test_checkpoints_of_shards(cfg):
    pytest.importorskip('mmdet')
    cfg.strategy = {'type': 'FSDPStrategy'}
    begin(cfg, purpose=Training())
    assert cfg.strategy.state_dict_cfg == 'full'
    cfg.strategy.state_dict_cfg = 'local'
    with pytest.raises(InputError, match=r"^strategy\.state_dict_cfg: 'local' writes the shards .*: give 'full'"):
        begin(cfg, purpose=Training())


def test_test(cfg, tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    checkpoint = str(tmp_path / 'weights.pth')
    monkeypatch.chdir(tmp_path)
    begin(cfg, checkpoint, Testing(out='x.pkl', show_dir='shown'))
    assert loads(cfg) == [LOADING] * 4 and cfg.load_from == checkpoint and cfg.resume is False
    assert [metric['type'] for metric in cfg.test_evaluator] == ['CocoMetric', 'DumpDetResults']
    assert cfg.default_hooks.visualization.test_out_dir.endswith('/shown')
    cfg.test_evaluator = {'type': 'CocoMetric'}
    begin(cfg, checkpoint, Testing(out='x.json', out_item='metrics'))
    assert cfg.test_evaluator == {'type': 'CocoMetric'}
    with pytest.raises(InputError, match=r'out: expected a name that ends in \.json, got x\.pkl'):
        begin(cfg, checkpoint, Testing(out='x.pkl', out_item='metrics'))
    (tmp_path / 'file').touch()
    for out in ('file/x.pkl', '/proc/x.pkl'):  # a folder that takes no files, known before the test
        with pytest.raises(ArgumentError, match=rf'^out: {out}: (Not a directory|File exists|No such file)'):
            begin(cfg, checkpoint, Testing(out=out))
    with pytest.raises(InputError, match='out_item: nothing is called metric; there are: pred, metrics'):
        begin(cfg, checkpoint, Testing(out='x.json', out_item='metric'))
    with pytest.raises(MissingFileError, match=r'checkpoint: no such file: gone\.pth'):
        begin(cfg, 'gone.pth', Testing())


def test_augmented_test_below_wrappers(cfg, tmp_path):
    pytest.importorskip('mmdet')
    begin(cfg, str(tmp_path / 'weights.pth'), Testing(tta=True))
    for part in cfg.test_dataloader.dataset.datasets:
        assert [transform.type for transform in part.pipeline] == [LOADING, 'TestTimeAug']
        flips, _ = part.pipeline[-1].transforms
        assert [flip.prob for flip in flips] == [0.0, 1.0]  # metrics read the labels of the first


@pytest.mark.parametrize(
    ('kind', 'layer'),
    [('DCN', 'DeformConv2d'), ('DCNv2', 'ModulatedDeformConv2d'), ('mmcv.DCNv2', 'ModulatedDeformConv2d')],
)
def test_deformable_convolutions_of_a_cpu(cfg, kind, layer, monkeypatch):
    def converted(device):
        monkeypatch.setattr('icconv_mm.app.runs.prepare.get_device', lambda: device)
        cfg.model.backbone = {'type': 'ResNet', 'dcn': {'type': kind, 'deform_groups': 1}}
        begin(cfg, purpose=Predicting())
        return cfg.model.backbone.dcn.type

    assert converted('cpu') == f'icconv_mm.{layer}'
    assert converted('cuda') == kind


def test_model_for_a_checkpoint_loads_no_weights_of_its_own(cfg, monkeypatch):
    pytest.importorskip('mmdet')
    built = []
    monkeypatch.setattr('mmengine.registry.MODELS.build', lambda model: built.append(model) or nn.Identity())
    cfg.data_preprocessor = {'num_classes': 3}  # mmpretrain keeps it beside the model
    backbone = {'type': 'ResNet', 'norm_cfg': {'type': 'SyncBN'}}
    expected = {'type': 'FasterRCNN', 'backbone': backbone, 'data_preprocessor': {'num_classes': 3}}
    begin(cfg).build_model()
    assert built == [expected]


def test_inference_takes_pipeline_and_classes_from_below_wrappers(cfg):
    for part, name in zip(cfg.test_dataloader.dataset.datasets, ('cat', 'dog')):
        part.metainfo = {'classes': (name,), 'palette': [(1, 2, 3)]}
    run = begin(cfg)
    assert run.inference_transforms() == [{'type': 'LoadImageFromFile'}]
    assert TaskAdapter().dataset_meta({}, run.datasets) == {'classes': ('cat',), 'palette': [(1, 2, 3)]}
    del cfg.test_dataloader.dataset.datasets[0].pipeline, cfg.test_dataloader.dataset.datasets[1].pipeline
    with pytest.raises(InputError, match='no pipeline in the dataset of the test_dataloader'):
        begin(cfg).inference_transforms()


def test_iterations_stretch_the_schedule(cfg):
    cfg.param_scheduler = [
        {'type': 'LinearLR', 'begin': 0, 'end': 30},
        {'type': 'CosineAnnealingLR', 'begin': 30, 'end': 300, 'T_max': 270},
    ]
    tiny = Config(cfg.to_dict())
    set_length(cfg, iters=100)
    assert cfg.train_cfg.max_iters == 100
    assert [(scheduler.begin, scheduler.end) for scheduler in cfg.param_scheduler] == [(0, 10), (10, 100)]
    assert cfg.param_scheduler[1].T_max == 90
    set_length(tiny, iters=1)
    assert all(scheduler.end > scheduler.begin for scheduler in tiny.param_scheduler)
    with pytest.raises(ValueError, match='iters: a training needs 1 or more, got 0'):
        set_length(cfg, iters=0)
    with pytest.raises(ValueError, match='counts its training in iters: give --iters'):
        set_length(cfg, epochs=3)


def test_epochs_stretch_all_that_counts(cfg):
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=10)
    cfg.param_scheduler = [
        dict(type='LinearLR', by_epoch=False, begin=0, end=1000),
        dict(type='MultiStepLR', begin=0, end=300, milestones=[200, 260]),
    ]
    cfg.custom_hooks = [dict(type='PipelineSwitchHook', switch_epoch=280)]
    set_length(cfg, epochs=30)
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=30, val_interval=1)
    assert cfg.param_scheduler == [
        dict(type='LinearLR', by_epoch=False, begin=0, end=100),
        dict(type='MultiStepLR', begin=0, end=30, milestones=[20, 26]),
    ]
    assert cfg.custom_hooks[0].switch_epoch == 28
    with pytest.raises(ValueError, match=r'iters: .* counts its training in epochs: give --epochs'):
        set_length(cfg, iters=5)
    with pytest.raises(ValueError, match='epochs: a training needs 1 or more, got -1'):
        set_length(cfg, epochs=-1)
