"""Runs as a whole: checks of what was built, runners with strategies, one run in a folder."""

import pytest
import torch
from mmengine.dist import is_distributed

from icconv_mm.apis import train
from icconv_mm.checkpoints.matching import ArchitectureMismatchError
from icconv_mm.data.checks import DatasetError
from icconv_mm.errors import ArgumentError, InputError
from icconv_mm.files import alone_in

pytest.importorskip('mmdet')


@pytest.fixture
def small(cfg, tmp_path):
    """The config of a library; its run saves at the end."""
    saving = {'type': 'CheckpointHook', 'interval': 2, 'by_epoch': False}
    return lambda **changes: cfg(**{'default_scope': 'mmdet', 'default_hooks': {'checkpoint': saving}, **changes})


def test_one_run_in_a_folder(small, tmp_path):
    left = tmp_path / '.iter_2.pth.0123.part'  # by a run that was killed
    left.touch()
    with alone_in(tmp_path, '', '.run.lock'):
        with pytest.raises(ArgumentError, match=rf'^work_dir: another run saves .* in {tmp_path}; choose another$'):
            train(small())
        assert left.exists() and not list(tmp_path.glob('*.pth'))
    train(small())
    assert not left.exists() and (tmp_path / 'iter_2.pth').is_file()
    train(small())  # nothing is held after a run


def test_a_loss_that_is_not_finite_ends_the_run(small):
    changes = dict(optim_wrapper__optimizer__lr=float('inf'), train_cfg__max_iters=4, train_cfg__val_interval=9)
    with pytest.raises(InputError, match=r'iteration 2: loss.* (nan|inf); pictures of the batch: .*--keep-going'):
        train(small(**changes))
    train(small(**changes), keep_going=True)


def test_a_validation_without_the_metric_that_chooses_the_best(small, tmp_path):
    """mmdet has none where nothing is detected, as in the first epochs from random weights."""
    saving = {'type': 'CheckpointHook', 'interval': 2, 'by_epoch': False, 'save_best': 'other', 'rule': 'greater'}
    train(small(default_hooks={'checkpoint': saving}))
    assert (tmp_path / 'iter_2.pth').is_file() and not list(tmp_path.glob('best*'))


def test_a_log_begins_with_what_matters_and_ends_with_curves(small, tmp_path):
    pytest.importorskip('matplotlib')
    train(small(log_level='INFO', default_hooks__logger=dict(type='LoggerHook', interval=1)))
    (log,) = tmp_path.glob('*/*.log')
    lines = log.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if ' INFO ' in line)
    assert all(words in line for words, line in zip(('c.py -> ', 'network: SavingModel', '6 pictures'), lines[first:]))
    assert len(lines) < 30 and (tmp_path / 'results.png').stat().st_size > 5000


def test_a_lock_that_is_a_link(small, tmp_path):
    """Put there by another user of the folder: what it leads to stays as it is."""
    (tmp_path / 'precious').write_text('text')
    (tmp_path / '.run.lock').symlink_to(tmp_path / 'precious')
    with pytest.raises(InputError, match=r'Too many levels of symbolic links: .*\.run\.lock'):
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
