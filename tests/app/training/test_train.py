"""Runs as a whole: checks of what was built, runners with strategies, one run in a folder."""

from unittest import mock

import pytest
import torch
from mmengine.config import config
from mmengine.dist import is_distributed
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from yapf.yapflib.yapf_api import FormatCode

from icconv_mm.apis import train
from icconv_mm.checkpoints import read
from icconv_mm.checkpoints.matching import ArchitectureMismatchError
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.errors import ArgumentError, InputError
from icconv_mm.files import alone_in

pytest.importorskip('mmdet')


@pytest.fixture
def quick(monkeypatch):
    """What mmengine logs of the machine starts several compilers."""
    for module in ('runner.runner', '_strategy.base'):
        monkeypatch.setattr(f'mmengine.{module}.collect_env', dict)


@pytest.fixture
def small(cfg, tmp_path):
    """The config of a library; its run saves at the end."""
    saving = {'type': 'CheckpointHook', 'interval': 2, 'by_epoch': False}
    return lambda **changes: cfg(**{'default_scope': 'mmdet', 'default_hooks': {'checkpoint': saving}, **changes})


def test_a_run_formats_its_config_once(small, quick, monkeypatch):
    texts = []

    def counted(text, **options):
        texts.append(text)
        return FormatCode(text, **options)

    monkeypatch.setattr(config, 'FormatCode', counted)
    cfg = small()
    train(cfg)
    assert len(texts) == 1 and config.FormatCode is counted  # nothing of mmengine is changed after a run
    cfg.model.type = 'Other'
    assert "'Other'" in cfg.pretty_text


def test_one_run_in_a_folder(small, tmp_path):
    left = tmp_path / '.iter_2.pth.0123.part'  # by a run that was killed
    left.touch()
    with alone_in(tmp_path, '', '.run.lock'):
        with pytest.raises(ArgumentError, match=rf'^work_dir: another run is at work in {tmp_path}; choose another$'):
            train(small())
        assert left.exists() and not list(tmp_path.glob('*.pth'))
    train(small())
    assert not left.exists() and (tmp_path / 'iter_2.pth').is_file()
    train(small())  # nothing is held after a run


def test_checkpoints_stay_with_their_config(small, quick, tmp_path):
    """Of a training that is repeated with other settings, whether it saves or is stopped before."""
    for number in (1, 2):
        train(small(custom=number))
    assert 'custom = 1' in (tmp_path / 'earlier_1/c.py').read_text() and (tmp_path / 'earlier_1/iter_2.pth').is_file()
    assert 'custom = 2' in (tmp_path / 'c.py').read_text()
    with (
        mock.patch('icconv_mm.app.training.train.train_runner', side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        train(small(custom=3))
    assert 'custom = 2' in (tmp_path / 'earlier_2/c.py').read_text() and not list(tmp_path.glob('*.pth'))


def test_a_training_that_cannot_go_on_leaves_what_is_there(small, quick, tmp_path):
    train(small(custom=1))
    with (
        mock.patch('icconv_mm.app.training.train.train_runner', side_effect=InputError('no')),
        pytest.raises(InputError),
    ):
        train(small(custom=2), resume=True)
    assert 'custom = 1' in (tmp_path / 'c.py').read_text() and (tmp_path / 'iter_2.pth').is_file()
    train(small(custom=3, train_cfg__max_iters=3), resume=True)
    assert 'custom = 3' in (tmp_path / 'c.py').read_text() and not (tmp_path / 'earlier_1').exists()


def test_a_training_from_a_checkpoint_of_its_folder(small, quick, tmp_path):
    train(small())
    train(small(load_from=str(tmp_path / 'iter_2.pth')))
    assert not (tmp_path / 'earlier_1').exists()


def test_a_loss_that_is_not_finite_ends_the_run(small):
    changes = dict(optim_wrapper__optimizer__lr=float('inf'), train_cfg__max_iters=4, train_cfg__val_interval=9)
    with pytest.raises(InputError, match=r'iteration 2: loss.* (nan|inf); images of the batch: .*--keep-going'):
        train(small(**changes))
    train(small(**changes), keep_going=True)


def test_a_validation_without_the_metric_that_chooses_the_best(small, tmp_path):
    """mmdet has none where nothing is detected, as in the first epochs from random weights."""
    saving = {'type': 'CheckpointHook', 'interval': 2, 'by_epoch': False, 'save_best': 'other', 'rule': 'greater'}
    train(small(default_hooks={'checkpoint': saving}))
    assert (tmp_path / 'iter_2.pth').is_file() and not list(tmp_path.glob('best*'))


@pytest.mark.parametrize(
    ('key', 'value', 'is_score'),
    [
        ('coco/bbox_mAP', -1.0, False),
        ('mIoU', float('nan'), False),
        ('coco/AP', 0.0, True),
        ('gain', -1.0, True),
    ],
)
def test_a_validation_without_objects_has_no_best(quick, small, tmp_path, key, value, is_score):
    """The training goes on to its end, and its last checkpoint is the result; that is reported once."""

    class Constant(BaseMetric):
        def process(self, data_batch, data_samples):
            self.results.append(0)

        def compute_metrics(self, results):
            return {key: value}

    saving = {'type': 'CheckpointHook', 'interval': 1, 'by_epoch': False, 'save_best': key, 'rule': 'greater'}
    stopping = {'type': 'EarlyStoppingHook', 'monitor': key, 'rule': 'greater', 'patience': 2}
    with mock.patch.dict(METRICS.module_dict, Constant=Constant):
        train(
            small(
                val_evaluator=dict(type='mmengine.Constant'),
                default_hooks=dict(checkpoint=saving),
                custom_hooks=[stopping],
                train_cfg__max_iters=5,
                log_level='INFO',
            )
        )
    assert bool(list(tmp_path.glob('best*'))) == is_score
    assert (tmp_path / 'last_checkpoint').read_text().endswith(f'iter_{3 if is_score else 5}.pth')
    (log,) = tmp_path.glob('*/*.log')
    assert log.read_text().count(f'{key} is {value}, as where a validation has no annotated object') == (not is_score)


def test_a_log_begins_with_what_matters(small, tmp_path):
    train(small(log_level='INFO', default_hooks__logger=dict(type='LoggerHook', interval=1)))
    (log,) = tmp_path.glob('*/*.log')
    lines = log.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if ' INFO ' in line)
    assert all(words in line for words, line in zip(('c.py -> ', 'network: SavingModel', '6 images'), lines[first:]))
    assert len(lines) < 30


def test_a_lock_that_is_a_link(small, tmp_path):
    """Put there by another user of the folder: what it leads to stays as it is."""
    (tmp_path / 'precious').write_text('text')
    (tmp_path / '.run.lock').symlink_to(tmp_path / 'precious')
    with pytest.raises(InputError, match=r'\.run\.lock is no plain file, and cannot be locked: remove it'):
        train(small())
    assert (tmp_path / 'precious').read_text() == 'text'


def test_epochs_of_another_length(small, tmp_path, capfd):
    """After a change of the batch size: what counts iterations goes on as it was planned."""
    saving = {'type': 'CheckpointHook', 'interval': 1}
    epochs = dict(
        train_cfg={'by_epoch': True, 'max_epochs': 1}, default_hooks={'checkpoint': saving}, log_level='WARNING'
    )
    train(small(**epochs))
    epochs['train_cfg']['max_epochs'] = 2
    for size, warns in ((2, False), (3, True)):
        capfd.readouterr()
        train(small(**epochs, train_dataloader__batch_size=size), resume=str(tmp_path / 'epoch_1.pth'))
        said = '1 epochs of the checkpoint had 3 iterations, here an epoch has 2'
        assert (said in ''.join(capfd.readouterr())) == warns


def test_iterations_of_another_batch(small, tmp_path, capfd):
    train(small(log_level='WARNING'))
    for size, warns in ((2, False), (3, True)):
        capfd.readouterr()
        changes = dict(log_level='WARNING', train_cfg__max_iters=3, train_dataloader__batch_size=size)
        train(small(**changes), resume=str(tmp_path / 'iter_2.pth'))
        said = 'an iteration of the checkpoint had 2 images, here it has 3 (another batch size or number of processes)'
        assert (said in ''.join(capfd.readouterr())) == warns


def test_a_file_system_without_locks(small, tmp_path, monkeypatch):
    fcntl = pytest.importorskip('fcntl')

    def refuse(*_):
        raise OSError(38, 'Function not implemented')

    monkeypatch.setattr(fcntl, 'flock', refuse)
    train(small())
    assert (tmp_path / 'iter_2.pth').is_file()


def test_an_empty_dataset(small):
    with pytest.raises(DatasetError, match=r'^val_dataloader\.dataset: the dataset is empty$'):
        train(small(val_dataloader__dataset={'type': 'FailingNumbers', 'length': 0, 'serialize_data': False}))


ON_A_CPU = {
    'SingleDeviceStrategy': {},
    'DDPStrategy': {'model_wrapper': {'type': 'MMDistributedDataParallel', 'device_ids': None}},
    'FSDPStrategy': {
        'model_wrapper': {'type': 'MMFullyShardedDataParallel', 'device_id': 'cpu', 'use_orig_params': True},
        'state_dict_cfg': 'full',
    },
}


@pytest.fixture
def alone_in_a_group(monkeypatch):
    """What torchrun gives its only process."""
    for name, value in dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='0').items():
        monkeypatch.setenv(name, value)
    yield
    if is_distributed():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize('strategy', ON_A_CPU)
def test_runners_with_strategies(small, tmp_path, strategy, alone_in_a_group):
    """The model is there once the strategy has made it: what is checked of it waits until then."""
    if strategy == 'FSDPStrategy' and tuple(map(int, torch.__version__.split('.')[:2])) < (2, 2):
        pytest.skip('this torch shards parameters on accelerators alone')
    flexible = {'runner_type': 'FlexibleRunner', 'strategy': {'type': strategy, **ON_A_CPU[strategy]}, 'env_cfg': {}}
    flexible |= {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}
    launcher = 'none' if strategy == 'SingleDeviceStrategy' else 'pytorch'
    train(small(**flexible), launcher=launcher)
    saved = tmp_path / 'iter_2.pth'
    assert saved.exists()
    train(small(**flexible, load_from=str(saved)), launcher=launcher)
    torch.save({'state_dict': {'weight': torch.ones(3)}}, other := tmp_path / 'other.pth')
    with pytest.raises(ArchitectureMismatchError, match=r'weight \[2\] in the model, \[3\] in the checkpoint'):
        train(small(**flexible, load_from=str(other)), launcher=launcher)
    with pytest.raises(DatasetError, match='the dataset is empty'):
        empty = {'type': 'FailingNumbers', 'length': 0, 'serialize_data': False}
        train(small(**flexible, train_dataloader__dataset=empty), launcher=launcher)


@pytest.mark.slow
@pytest.mark.parametrize(
    'runner',
    [{}, {'runner_type': 'FlexibleRunner', 'strategy': {'type': 'SingleDeviceStrategy'}, 'env_cfg': {}}],
    ids=['Runner', 'FlexibleRunner'],
)
def test_a_longer_training_has_the_rates_of_one_from_the_start(quick, small, tmp_path, runner):
    """Resumed after a half that had its own schedule, bit by bit; a warm-up of one step does not hold the rate down."""

    def run(iters, folder, **options):
        schedule = [
            dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=1),
            dict(type='PolyLR', by_epoch=False, end=iters),
        ]
        saving = {'type': 'CheckpointHook', 'interval': 1, 'by_epoch': False}
        changes = dict(train_cfg__max_iters=iters, param_scheduler=schedule, work_dir=str(tmp_path / folder), **runner)
        train(small(default_hooks={'checkpoint': saving}, randomness=dict(seed=0), **changes), **options)
        return [read(path) for path in sorted((tmp_path / folder).glob('iter_*.pth'))]

    whole = run(6, 'whole')
    run(3, 'part')
    resumed = run(6, 'part', resume=True)
    assert [state['optimizer']['param_groups'][0]['lr'] for state in whole[:2]] == pytest.approx([0.08, 0.06])
    for before, after in zip(whole[3:], resumed[3:]):
        assert before['optimizer']['param_groups'][0]['lr'] == after['optimizer']['param_groups'][0]['lr']
