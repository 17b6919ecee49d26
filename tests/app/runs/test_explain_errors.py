"""What a run raises: a message where the user can do something about it, a traceback where the fault is ours."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import LoggerHook
from small_runs import ERRORS, loader

from icconv_mm.app.runs import explain_errors as home
from icconv_mm.app.runs.begin import begin
from icconv_mm.app.runs.explain_errors import ProcessGoneError
from icconv_mm.app.runs.schedules import train_runner
from icconv_mm.app.training.train import build_runner
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.errors import InputError


def run(cfg: Config) -> None:
    task_run = begin(cfg)
    with task_run.errors:
        train_runner(build_runner(task_run))


def test_a_run_without_a_fault(cfg):
    run(cfg())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model__type': 'SavingModle'}, 'c.py: model: .*SavingModle is not in the'),
        ({'model__depth': 3}, "c.py: model: .*unexpected keyword argument 'depth'"),
        ({'train_dataloader__dataset__lenght': 3}, 'c.py: train_dataloader: .*lenght'),
        ({'train_dataloader__dataset__length': 0}, '^train_dataloader.dataset: no image is found, or none is left'),
        ({'val_evaluator__type': 'Any'}, 'c.py: val_dataloader: Any is not in the'),
        ({'optim_wrapper__optimizer__type': 'SDG'}, 'c.py: optim_wrapper: '),
        ({'optim_wrapper__optimizer__lr': -1}, 'c.py: optim_wrapper: .*-1'),
        ({'param_scheduler': {'type': 'LinearLR', 'start': 3}}, "c.py: param_scheduler: .*'start'"),
        ({'load_from': 3}, 'c.py: '),
    ],
    ids=str,
)
def test_before_the_first_step_the_config_is_wrong(cfg, change, message):
    with pytest.raises(InputError, match=message):
        run(cfg(**change))


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('error', ERRORS)
def test_after_it_a_fault_is_ours_unless_the_error_is_one_of_users(cfg, error, workers):
    dataset = {'type': 'FailingNumbers', 'error': error}
    config = cfg(train_dataloader=loader(dataset=dataset, num_workers=workers))
    with pytest.raises(ERRORS[error], match=r'a\.jpg: truncated') as raised:
        run(config)
    assert not isinstance(raised.value, InputError)


def test_annotations_that_a_metric_cannot_take(cfg, tmp_path):
    (tmp_path / 'a.json').write_text('[]')
    metric = {'type': 'CocoScore', 'ann_file': str(tmp_path / 'a.json')}
    with pytest.raises(DatasetError, match=r'val_evaluator\.0\.ann_file: .*a\.json: not a COCO annotation file'):
        run(cfg(val_evaluator=[metric]))
    with pytest.raises(KeyError, match='area'):  # nothing is known of the file
        run(cfg(val_evaluator=[{**metric, 'ann_file': 'gone.json'}]))


@pytest.mark.parametrize('begun', [True, False])
def test_another_process_that_is_gone(cfg, begun, monkeypatch):
    monkeypatch.setattr(home, 'get_world_size', lambda: 2)
    said = r'^process 0 of 2: another process .* \(Connection closed by peer\)$'
    with pytest.raises(ProcessGoneError, match=said), begin(cfg()).errors as explainer:
        explainer.begun = begun
        raise RuntimeError('Connection closed by peer\nat b')


def test_what_a_checkpoint_leads_to_names_the_checkpoint(cfg, tmp_path):
    """Such as states of an optimizer that torch refuses."""
    task_run = begin(cfg(train_cfg__max_iters=1))
    with task_run.errors:
        runner = build_runner(task_run)
        train_runner(runner)
    runner.save_checkpoint(str(tmp_path), 'a.pth')
    content = torch.load(tmp_path / 'a.pth', weights_only=False)
    content['optimizer']['param_groups'] *= 2
    torch.save(content, tmp_path / 'b.pth')
    with pytest.raises(InputError, match=re.escape(f'{tmp_path}/b.pth: ')):
        run(cfg(load_from=str(tmp_path / 'b.pth'), resume=True, train_cfg__max_iters=2))


def test_one_process_writes_the_metrics_of_a_test(cfg, monkeypatch):
    """mmengine's hook writes the file in each: what two write at once cannot be read."""
    task_run = begin(cfg(train_cfg__max_iters=1))
    with task_run.errors:
        hook = next(hook for hook in build_runner(task_run).hooks if isinstance(hook, LoggerHook))
    with pytest.raises(AttributeError):  # it goes about it
        hook.after_test_epoch(None)
    monkeypatch.setattr('mmengine.dist.utils.get_rank', lambda group=None: 1)
    hook.after_test_epoch(None)


def test_a_batch_that_batch_norm_cannot_learn_from(cfg):
    """The last batch of an epoch may have one image, of which a small one becomes one pixel."""
    message = r'c\.py: a batch has one image, .* \(--size 64\), .*batch_size.*drop_last=True'
    with pytest.raises(InputError, match=message), begin(cfg()).errors as explainer:
        explainer.before_train(None)
        torch.nn.BatchNorm2d(2)(torch.ones(1, 2, 1, 1))


@pytest.mark.parametrize(
    'error',
    [
        torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.'),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_memory_that_does_not_suffice(cfg, error):
    """What can be made smaller, before the first step and after it."""
    task_run = begin(cfg())
    message = r'c\.py: the memory does not suffice \(.*--size.*batch_size \(now \d+\)'
    for begun in (False, True):
        with pytest.raises(InputError, match=message), task_run.errors as explainer:
            explainer.begun = begun
            raise error


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (RuntimeError('DataLoader worker (pid(s) 7) exited unexpectedly'), 'was killed, as the system does when'),
        (
            RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. '),
            'was killed, as the system does when',
        ),
        (RuntimeError('DataLoader worker (pid 7) is killed by signal: Bus error. It is'), r'\(/dev/shm\) is full'),
        (MemoryError('Unable to allocate 3 GiB'), r'does not suffice to load an image \(Unable to allocate 3 GiB\)'),
    ],
)
def test_a_loading_process_that_is_gone(cfg, error, message, tmp_path):
    config = cfg(work_dir=str(tmp_path))
    (tmp_path / 'iter_3.pth').touch()
    (tmp_path / 'last_checkpoint').write_text('iter_3.pth')
    given = f'{message}.*; {tmp_path}/iter_3.pth is saved.*train_dataloader.num_workers=0'
    with pytest.raises(InputError, match=given), begin(config).errors as explainer:
        explainer.begun = True
        raise error
