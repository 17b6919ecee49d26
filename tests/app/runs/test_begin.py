"""The one beginning of a run, from all that it can be given."""

import pytest
import torch
from mmengine.config import Config

from icconv_mm.app.runs.begin import begin
from icconv_mm.app.runs.prepare import Browsing, Testing, Training
from icconv_mm.errors import ArgumentError, InputError, MissingFileError

CONFIG = "default_scope = 'mmdet'\nmodel = dict(type='RetinaNet', backbone=dict(type='ResNet', norm=dict(type='BN')))\n"
LOADER = {'dataset': {'type': 'CocoDataset', 'pipeline': [{'type': 'LoadImage'}]}}


@pytest.fixture
def folder(tmp_path):
    """The folder of a training with two checkpoints."""
    (tmp_path / 'c.py').write_text(CONFIG)
    for name in ('epoch_3.pth', 'best_coco_epoch_2.pth'):
        torch.save({'meta': {'cfg': CONFIG}}, tmp_path / name)
    return tmp_path


def test_the_folder_of_a_training(folder):
    pytest.importorskip('mmdet')
    run = begin(folder)
    assert run.cfg.filename == str(folder / 'c.py') and run.checkpoint == str(folder / 'best_coco_epoch_2.pth')
    assert begin(folder, str(folder / 'epoch_3.pth')).checkpoint == str(folder / 'epoch_3.pth')
    (folder / 'd.py').write_text(CONFIG)
    with pytest.raises(ArgumentError, match='several configs beside it'):
        begin(folder)


def test_what_is_no_config(folder):
    with pytest.raises(ArgumentError, match='path: expected the name of a config file, got int'):
        begin(3)
    with pytest.raises(MissingFileError, match='config: no such file'):
        begin(folder / 'gone.py')
    with pytest.raises(MissingFileError, match='checkpoint: no such file'):
        begin(Config({}), str(folder / 'gone.pth'))


def test_what_is_found_in_a_config_follows_its_changes(tmp_path):
    pytest.importorskip('mmdet')
    parts = {'val_dataloader': LOADER, 'val_evaluator': {'type': 'CocoMetric', 'ann_file': 'a.json'}}
    cfg = Config({'default_scope': 'mmdet', 'train_dataloader': LOADER, **parts, 'work_dir': str(tmp_path)})
    run = begin(cfg)
    assert {node.location: node.kind for node in run.nodes}['val_dataloader.dataset.pipeline.0'] == 'LoadImage'
    assert len(run.datasets['val']) == 1 and run.errors.metrics == {'val_evaluator': 'a.json'}
    assert begin(run, purpose=Training(validate=False)) is run
    assert 'val' not in {node.part.partition('_')[0] for node in run.nodes}
    assert run.datasets['val'] == () and run.errors.metrics == {}
    (transform,) = run.datasets['train'][0].transforms
    assert transform.cfg is cfg.train_dataloader.dataset.pipeline[0] and transform.kind == 'LoadImageFromFile'


def test_a_dataset_that_is_not_there():
    pytest.importorskip('mmdet')
    with pytest.raises(InputError, match=r'None: no val_dataloader$'):
        begin(Config({'default_scope': 'mmdet', 'train_dataloader': LOADER}), purpose=Browsing('val'))


def test_a_metric_that_a_test_adds_is_found(tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / 'a.pth').touch()
    cfg = Config({'default_scope': 'mmdet', 'test_dataloader': LOADER, 'test_evaluator': {'type': 'CocoMetric'}})
    run = begin(cfg, str(tmp_path / 'a.pth'), Testing(out=str(tmp_path / 'x.pkl')))
    assert [node.kind for node in run.nodes if node.part == 'test_evaluator'] == ['CocoMetric', 'DumpDetResults']
    assert run.cfg.load_from == run.checkpoint


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda run: run.build_model(), r'^c\.py: model: .*depht'),
        (lambda run: run.build_pipeline(), r'^c\.py: test pipeline: .*Turn'),
        (lambda run: run.build_dataset('test'), r'^c\.py: test_dataloader: .*Turn'),
    ],
    ids=['model', 'pipeline', 'dataset'],
)
def test_what_cannot_be_built_names_its_part(tmp_path, build, message):
    pytest.importorskip('mmdet')
    (tmp_path / 'a.json').write_text('{"images": [], "annotations": [], "categories": []}')
    dataset = {'type': 'CocoDataset', 'ann_file': str(tmp_path / 'a.json'), 'pipeline': [{'type': 'Turn'}]}
    model = {'type': 'RetinaNet', 'depht': 3}
    run = begin(Config({'default_scope': 'mmdet', 'model': model, 'test_dataloader': {'dataset': dataset}}))
    run.name = 'c.py'
    with pytest.raises(InputError, match=message):
        build(run)
