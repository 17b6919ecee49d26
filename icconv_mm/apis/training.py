"""Training of any task by its config."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn

from icconv_mm.apis.config import as_config
from icconv_mm.apis.datasets import build_loop, check_data_paths, explaining_metrics
from icconv_mm.apis.preparation import prepare_training
from icconv_mm.checkpoints import safe
from icconv_mm.checkpoints.matching import check_covers
from icconv_mm.engine import CheckpointMatchHook, ResumableRandomnessHook
from icconv_mm.engine.checkpoint_match_hook import unwrapped
from icconv_mm.errors import ArgumentError, UserError, building, sentence
from icconv_mm.layers.memory_format import give_contiguous_maps, set_memory_format
from icconv_mm.utils.config_tree import as_list
from icconv_mm.utils.files import require_file

# What gloo and NCCL say when another process is silent or gone.
_GONE = re.compile(
    r'[Tt]imed out|[Tt]imeout|[Cc]onnection (?:closed|reset|refused)|Broken pipe|[Rr]emote (?:process|rank)'
)


def train(
    cfg: Config | str | Path,
    *,
    resume: str | bool = False,
    amp: bool = False,
    auto_scale_lr: bool = False,
    launcher: str = 'none',
    validate: bool = True,
    skip_bad_images: bool = False,
    allow_mismatch: Sequence[str] = (),
    memory_format: str | None = None,
) -> Runner:
    """Train a model, as the task library's own tool does, with bad input told apart from faults.

    Args:
        cfg: A config with ``work_dir`` set (:func:`icconv_mm.apis.load_config`), which is changed in place, or its
            file.
        resume: Continue from this checkpoint; True or ``'auto'`` for the latest one in ``cfg.work_dir``, if any.
        amp: Mixed precision: float16 on a GPU, bfloat16 on a CPU.
        auto_scale_lr: Scale the learning rate by the batch size, as ``cfg.auto_scale_lr`` says.
        launcher: Who started the processes: ``'none'``, ``'pytorch'`` (torchrun), ``'slurm'`` or ``'mpi'``.
        validate: Whether to validate during the training, as the config says.
        skip_bad_images: Warn about unreadable images and train without them.
        allow_mismatch: Modules where ``cfg.load_from`` may differ from the model, such as ``'roi_head.bbox_head'``.
        memory_format: Memory format of the maps of any backbone, instead of what its config says: see
            :func:`icconv_mm.layers.set_memory_format`.

    Returns:
        The runner, after training.

    Raises:
        MissingFileError: A file that is named is not there.
        InputError, DatasetError, CheckpointError, ArchitectureMismatchError: Bad input, named in the message.
    """
    cfg = as_config(cfg)
    task = prepare_training(
        cfg,
        resume=resume,
        amp=amp,
        auto_scale_lr=auto_scale_lr,
        launcher=launcher,
        validate=validate,
        skip_bad_images=skip_bad_images,
    )
    check_data_paths(cfg, 'train', 'val')
    runner = build_runner(cfg, allow_mismatch=allow_mismatch, memory_format=memory_format)
    check_pretrained(runner.model)
    build_loop(runner, task, 'train')
    build_loop(runner, task, 'val')
    build_optimizer(runner, str(cfg.filename))
    with explaining_metrics(cfg), reporting_lost_processes():
        runner.train()
    return runner


class ProcessGoneError(UserError, RuntimeError):
    """Another process of a run has ended, or does not answer within ``env_cfg.dist_cfg.timeout`` seconds."""


@contextmanager
def reporting_lost_processes() -> Iterator[None]:
    """Raise ProcessGoneError where the exchange with another process of the run fails."""
    try:
        yield
    except RuntimeError as error:
        if get_world_size() == 1 or not _GONE.search(str(error)):
            raise
        raise ProcessGoneError(
            f'process {get_rank()} of {get_world_size()}: another process of this run has ended or does not answer '
            f'({sentence(error).splitlines()[0]:.200})'
        ) from error


def check_pretrained(model: nn.Module) -> None:
    """Raise for a local file of pretrained weights that is missing or of another architecture.

    mmengine loads what fits of it, and says the rest in the log.
    """
    for name, module in model.named_modules():
        for init in as_list(getattr(module, 'init_cfg', None) or []):
            path = init.get('checkpoint') if init.get('type') == 'Pretrained' else None
            if path is None or '://' in path:
                continue
            require_file(Path(path).expanduser(), f'{name or "model"}.init_cfg.checkpoint')
            check_covers(module, safe.load(path), path, init.get('prefix'))


def build_runner(cfg: Config, *, allow_mismatch: Sequence[str] = (), memory_format: str | None = None) -> Runner:
    """The runner of a prepared config, with the hooks that every run of the tools has.

    They are not added to the config, so that the file that the runner writes stays the user's.

    Raises:
        InputError: Something that the config names cannot be built, or a memory format is given and no backbone.
    """
    with building(str(cfg.filename)):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    checkpoint = cfg.get('load_from') or (find_latest_checkpoint(cfg.work_dir) if cfg.get('resume') else None)
    runner.register_hook(
        CheckpointMatchHook(allow_mismatch, str(checkpoint or 'the checkpoint'), bool(cfg.get('resume')))
    )
    if cfg.get('train_cfg') and not any(isinstance(hook, ResumableRandomnessHook) for hook in runner.hooks):
        runner.register_hook(ResumableRandomnessHook())
    if memory_format is not None:
        _set_memory_format(runner.model, memory_format)
    return runner


def build_optimizer(runner: Runner, name: str) -> None:
    """Build the optimizer before the training does, where an exception may also be a fault.

    Raises:
        InputError: It cannot be built as the config ``name`` says.
    """
    if isinstance(runner, Runner):  # others have a strategy that builds it
        with building(f'{name}: optim_wrapper'):
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)


def _set_memory_format(model: nn.Module, memory_format: str) -> None:
    model = unwrapped(model)
    if not isinstance(backbone := getattr(model, 'backbone', None), nn.Module):
        raise ArgumentError('memory_format', f'{type(model).__name__} has no backbone whose maps it could be')
    set_memory_format(backbone, memory_format)
    give_contiguous_maps(model)
