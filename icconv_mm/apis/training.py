"""Training of any task by its config."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.device import is_cuda_available
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn

from icconv_mm.apis.datasets import build_loop, check_dataloader_paths
from icconv_mm.apis.distributed import prepare_launch
from icconv_mm.checkpoints import safe
from icconv_mm.checkpoints.matching import check_covers
from icconv_mm.datasets.loading import check_pictures
from icconv_mm.errors import InputError, building
from icconv_mm.tasks import get_task
from icconv_mm.tasks.base import Task


def train(
    cfg: Config,
    *,
    resume: str | bool = False,
    amp: bool = False,
    auto_scale_lr: bool = False,
    launcher: str = 'none',
    skip_bad_images: bool = False,
    allow_mismatch: Sequence[str] = (),
) -> Runner:
    """Train a model, as the task library's own tool does, with bad input told apart from faults.

    Args:
        cfg: A config with ``work_dir`` set (:func:`icconv_mm.apis.load_config`); changed in place.
        resume: Continue from this checkpoint; True or ``'auto'`` for the latest one in ``cfg.work_dir``, if any.
        amp: Mixed precision: float16 on a GPU, bfloat16 on a CPU.
        auto_scale_lr: Scale the learning rate by the batch size, as ``cfg.auto_scale_lr`` says.
        launcher: Who started the processes: ``'none'``, ``'pytorch'`` (torchrun), ``'slurm'`` or ``'mpi'``.
        skip_bad_images: Warn about unreadable pictures and train without them.
        allow_mismatch: Modules where ``cfg.load_from`` may differ from the model, such as ``'roi_head.bbox_head'``.

    Returns:
        The runner, after training.

    Raises:
        InputError, DatasetError, CheckpointError, ArchitectureMismatchError: Bad input, named in the message.
    """
    task = get_task(cfg, str(cfg.filename))
    safe.install()
    _require(cfg, 'train_dataloader', 'train_cfg', 'optim_wrapper')
    prepare_launch(cfg, launcher)
    if amp:
        enable_amp(cfg, task)
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if resume:
        enable_resume(cfg, resume)
    elif cfg.get('load_from') and '://' not in cfg.load_from and not Path(cfg.load_from).is_file():
        raise InputError(f'load_from: no such file: {cfg.load_from}')
    check_dataloader_paths(cfg, 'train', 'val')
    check_pictures(cfg)
    check_pictures(cfg.train_dataloader, skip_bad=skip_bad_images)

    runner = build_runner(cfg)
    add_hooks(runner, cfg, allow_mismatch)
    check_pretrained(runner.model)
    build_loop(runner, task, 'train')
    build_loop(runner, task, 'val')
    runner.train()
    return runner


def check_pretrained(model: nn.Module) -> None:
    """Raise for a local file of pretrained weights that is missing or of another architecture.

    mmengine loads what fits of it, and says the rest in the log.
    """
    for name, module in model.named_modules():
        inits = getattr(module, 'init_cfg', None) or []
        for init in inits if isinstance(inits, (list, tuple)) else [inits]:
            path = init.get('checkpoint') if init.get('type') == 'Pretrained' else None
            if path is None or '://' in path:
                continue
            if not Path(path).expanduser().is_file():
                raise InputError(f'{name or "model"}.init_cfg.checkpoint: no such file: {path}')
            check_covers(module, safe.load(path), path, init.get('prefix'))


def build_runner(cfg: Config) -> Runner:
    """The runner of a config, with what its constructors refuse as an :class:`InputError`."""
    # mmengine keeps visualisers by name for the whole process; without one, each run has its own, in its own folder.
    (cfg.get('visualizer') or {}).pop('name', None)
    with building(str(cfg.filename)):
        return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def add_hooks(runner: Runner, cfg: Config, allow_mismatch: Sequence[str] = ()) -> None:
    """Add the hooks that every run of the tools has; the config that the runner has written stays the user's."""
    from icconv_mm.engine import CheckpointMatchHook, ResumableRandomnessHook

    checkpoint = cfg.get('load_from') or (find_latest_checkpoint(cfg.work_dir) if cfg.get('resume') else None)
    runner.register_hook(CheckpointMatchHook(allow_mismatch, str(checkpoint or 'the checkpoint')))
    if cfg.get('train_cfg') and not any(isinstance(hook, ResumableRandomnessHook) for hook in runner.hooks):
        runner.register_hook(ResumableRandomnessHook())


def enable_amp(cfg: Config, task: Task) -> None:
    """Mixed precision by the wrapper that fits the machine."""
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'icconv_mm.CPUAmpOptimWrapper'):
        raise InputError(f'--amp: optim_wrapper.type is {kind!r}, expected OptimWrapper')
    if is_cuda_available():
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    else:
        for option in ('loss_scale', 'dtype', 'use_fsdp'):  # of AmpOptimWrapper
            wrapper.pop(option, None)
        wrapper.type = 'icconv_mm.CPUAmpOptimWrapper'
        wrapper.setdefault('modules', task.autocast_modules)


def enable_auto_scale_lr(cfg: Config) -> None:
    """Let the runner scale the learning rate by its linear rule."""
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise InputError(f'--auto-scale-lr: {cfg.filename} has no auto_scale_lr.base_batch_size')
    cfg.auto_scale_lr.enable = True


def enable_resume(cfg: Config, resume: str | bool) -> None:
    """Continue from a checkpoint, with its seed if the config gives none (samplers are built before it is read)."""
    path = None if resume in (True, 'auto') else str(resume)
    if path is not None and '://' not in path and not Path(path).is_file():
        raise InputError(f'--resume: no such file: {path}')
    cfg.resume, cfg.load_from = True, path
    if cfg.get('randomness', {}).get('seed') is None:
        latest = path or (find_latest_checkpoint(cfg.work_dir) if Path(cfg.work_dir).is_dir() else None)
        if latest is not None and Path(latest).is_file():
            seed = safe.load(latest).get('meta', {}).get('seed')
            cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}


def _require(cfg: Config, *names: str) -> None:
    missing = [name for name in names if not cfg.get(name)]
    if missing:
        raise InputError(f'{cfg.filename} cannot be trained: it has no {", ".join(missing)}')
