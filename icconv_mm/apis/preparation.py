"""What a run changes in its config: one function per purpose, in the order in which its lines stand.

Each takes a config as :func:`icconv_mm.apis.load_config` returns it, changes it in place and returns the adapter of its
task, which makes the changes that differ between tasks (``show_predictions``, ``enable_tta``). What changes a part of a
config, or makes another config of it, is in :mod:`icconv_mm.apis.config`.
"""

import re
from datetime import timedelta
from logging import WARNING
from numbers import Real
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device, is_cuda_available
from mmengine.logging import print_log
from mmengine.runner import find_latest_checkpoint

from icconv_mm.apis.config import replace_image_loading
from icconv_mm.checkpoints import safe
from icconv_mm.checkpoints.resuming import seed_of
from icconv_mm.engine import AtomicCheckpointHook, CPUAmpOptimWrapper
from icconv_mm.errors import ArgumentError, InputError, naming, require_known
from icconv_mm.registry import scoped
from icconv_mm.tasks.base import TaskAdapter
from icconv_mm.tasks.select import get_task
from icconv_mm.utils.config_tree import as_list, dicts_in
from icconv_mm.utils.files import require_argument_file, require_file

# Top-level keys of a config that hold a dict each; a runner reads most of them only after a while.
_DICTS = (
    'model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg',
    'optim_wrapper', 'default_hooks', 'env_cfg', 'randomness', 'visualizer', 'auto_scale_lr',
)  # fmt: skip


def prepare(cfg: Config) -> TaskAdapter:
    """What every purpose needs: images are checked as they are read, and no two runs share a visualiser."""
    _require_dicts(cfg)
    task = get_task(cfg, str(cfg.filename))
    safe.install()
    replace_image_loading(cfg)
    # mmengine keeps visualisers by name for the whole process; without one, each run has its own, in its own folder.
    (cfg.get('visualizer') or {}).pop('name', None)
    return task


def prepare_training(
    cfg: Config,
    *,
    resume: str | bool = False,
    amp: bool = False,
    auto_scale_lr: bool = False,
    launcher: str = 'none',
    validate: bool = True,
    skip_bad_images: bool = False,
) -> TaskAdapter:
    """Arguments and errors as of :func:`icconv_mm.apis.train`."""
    task = prepare(cfg)
    _require(cfg, 'trained', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    saving = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if saving.get('type') == 'CheckpointHook':  # which deletes the last checkpoint before it writes the next one
        saving['type'] = scoped(AtomicCheckpointHook)
    _distribute(cfg, launcher)
    if amp:
        _use_amp(cfg, task)
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ArgumentError('auto_scale_lr', f'{cfg.filename} has no auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    if resume:
        _resume(cfg, resume)
    elif cfg.get('load_from'):
        require_file(cfg.load_from, 'load_from')
    if not validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    _check_schedule(cfg)
    if skip_bad_images:
        replace_image_loading(cfg.train_dataloader, skip_bad=True)
    return task


def prepare_test(
    cfg: Config,
    checkpoint: str,
    *,
    out: str | None = None,
    out_item: str = 'pred',
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2.0,
    tta: bool = False,
    launcher: str = 'none',
) -> TaskAdapter:
    """Arguments and errors as of :func:`icconv_mm.apis.test`."""
    task = prepare(cfg)
    _require(cfg, 'tested', 'test_dataloader', 'test_evaluator')
    require_file(checkpoint, 'checkpoint')
    _distribute(cfg, launcher)
    cfg.load_from, cfg.resume = checkpoint, False
    if show or show_dir:
        task.show_predictions(cfg, show, show_dir and str(Path(show_dir).absolute()), wait_time)
    if tta:
        task.enable_tta(cfg)
    require_known([out_item], ('pred', 'metrics'), 'out_item: nothing is called')
    if out is not None:
        endings = ('.json',) if out_item == 'metrics' else ('.pkl', '.pickle')
        if not out.endswith(endings):
            raise ArgumentError('out', f'expected a name that ends in {endings[0]}, got {out}')
    if out is not None and out_item == 'pred':
        cfg.test_evaluator = [*as_list(cfg.test_evaluator), {'type': task.dump_metric, 'out_file_path': out}]
    return task


def _require_dicts(cfg: Config) -> None:
    values = {name: cfg.get(name) for name in _DICTS}
    loaders = {name: values[name] for name in _DICTS if name.endswith('_dataloader') and isinstance(values[name], dict)}
    values |= {f'{name}.dataset': loader.get('dataset') for name, loader in loaders.items()}
    for name, value in values.items():
        if isinstance(value, (str, int, float, list, tuple)):  # an object that is built already may be there
            raise InputError(f'{cfg.filename}: {name} is {value!r:.60}, expected a dict')
    if not isinstance(cfg.get('load_from'), (str, type(None))):
        raise InputError(f'{cfg.filename}: load_from is {cfg.load_from!r:.60}, expected a path')


def _require(cfg: Config, purpose: str, *names: str) -> None:
    missing = [name for name in names if not cfg.get(name)]
    if missing:
        raise InputError(f'{cfg.filename} cannot be {purpose}: it has no {", ".join(missing)}')


def _check_schedule(cfg: Config) -> None:
    """Raise InputError for a length of the training, or an interval of validation, that is no number above 0."""
    if not isinstance(cfg.train_cfg, dict):  # a loop that is built already
        return
    for name in ('max_iters', 'max_epochs', *(['val_interval'] if cfg.get('val_cfg') else [])):
        value = cfg.train_cfg.get(name, 1)
        if not isinstance(value, Real) or value <= 0:
            raise InputError(f'{cfg.filename}: train_cfg.{name} is {value!r:.60}, expected a number above 0')


def _distribute(cfg: Config, launcher: str) -> None:
    """Set ``cfg.launcher``; without an accelerator, make distributed runs use gloo and plain batch norm."""
    cfg.launcher = launcher
    if get_device() != 'cpu':
        return
    for node in dicts_in(cfg.model):
        if node.get('type') == 'SyncBN':  # torch's SyncBatchNorm refuses CPU tensors
            node['type'] = 'BN'
    if launcher == 'none':
        return
    # mmengine would call torch.cuda.set_device whatever the backend; it leaves a group that exists alone.
    timeout = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
    if launcher == 'pytorch' and not torch.distributed.is_initialized():
        try:
            torch.distributed.init_process_group(
                'gloo', timeout=None if timeout is None else timedelta(seconds=timeout)
            )
        except ValueError as error:  # the environment has no RANK, WORLD_SIZE, ...
            raise ArgumentError('launcher', f'pytorch: the process was not started by torchrun ({error})') from None
    cfg.setdefault('env_cfg', {})['dist_cfg'] = {'backend': 'gloo'}
    if 'model_wrapper_cfg' not in cfg:
        cfg.model_wrapper_cfg = {
            'type': 'MMDistributedDataParallel',
            'device_ids': None,  # required on CPU
            'broadcast_buffers': False,
            'find_unused_parameters': cfg.get('find_unused_parameters', False),
        }


def _use_amp(cfg: Config, task: TaskAdapter) -> None:
    """Mixed precision by the wrapper that fits the machine."""
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', scoped(CPUAmpOptimWrapper)):
        raise ArgumentError('amp', f'optim_wrapper.type is {kind!r}, expected OptimWrapper')
    if is_cuda_available():
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    else:
        for option in ('loss_scale', 'dtype', 'use_fsdp'):  # of AmpOptimWrapper
            wrapper.pop(option, None)
        wrapper.type = scoped(CPUAmpOptimWrapper)
        wrapper.setdefault('modules', task.autocast_modules)


def _resume(cfg: Config, resume: str | bool) -> None:
    """Continue from a checkpoint, with its seed if the config gives none (samplers are built before it is read)."""
    path = None if resume in (True, 'auto') else str(resume)
    if path is not None:
        require_argument_file(path, 'resume')
    latest = path or _latest_checkpoint(cfg.work_dir)
    cfg.resume, cfg.load_from = True, path or latest
    if cfg.get('randomness', {}).get('seed') is None and latest is not None and Path(latest).is_file():
        content = safe.load(latest)
        with naming(str(latest)):
            seed = seed_of(content)
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}


def _latest_checkpoint(work_dir: str) -> str | None:
    """The checkpoint that ``last_checkpoint`` names, if it is gone the latest that is there. None without the file."""
    named = find_latest_checkpoint(work_dir) if Path(work_dir).is_dir() else None
    if not named and named is not None:
        named = '(nothing)'
    if named is None or '://' in named or Path(named).is_file():
        return named
    steps = {path: re.fullmatch(r'(?:iter|epoch)_(\d+)', path.stem) for path in Path(work_dir).glob('*.pth')}
    there = {path: int(step[1]) for path, step in steps.items() if step}
    if not there:
        raise ArgumentError('resume', f'{work_dir}/last_checkpoint names {named}, which is gone, and there is no other')
    latest = max(there, key=there.get)
    print_log(f'{work_dir}/last_checkpoint names {named}, which is gone: continuing from {latest}', 'current', WARNING)
    return str(latest)
