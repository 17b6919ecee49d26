"""Trains and tests any task by its config: prepares it, builds the runner, runs it, and explains its errors."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.config import Config
from mmengine.config import config as mmengine_config
from mmengine.dist import is_main_process, master_only
from mmengine.fileio import dump
from mmengine.hooks import LoggerHook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from icconv_mm.app.evaluation.hook import EvaluationHook
from icconv_mm.app.runs.begin import TaskRun, begin
from icconv_mm.app.runs.prepare import Testing, Training
from icconv_mm.app.runs.schedules import ScheduleHook, train_runner
from icconv_mm.app.runs.workers import WorkersHook
from icconv_mm.app.training.budget import Budget, BudgetHook
from icconv_mm.app.training.hooks.checkpoint_checks import CheckpointMatchHook, ImageCheckHook
from icconv_mm.app.training.hooks.logs import FiniteLossHook, OpeningHook, UnmeasuredHook, warning_after_run
from icconv_mm.app.training.hooks.progress import ProgressBarHook
from icconv_mm.app.training.hooks.unsaved_state import UnsavedStateHook
from icconv_mm.config_tree import Node
from icconv_mm.engine.deploy_hook import DeployHook
from icconv_mm.engine.randomness import ResumableRandomnessHook
from icconv_mm.errors import ArgumentError, InputError
from icconv_mm.run_folder import keeping_earlier_training, only_run_in

if TYPE_CHECKING:  # imports every strategy, and most runs use none
    from mmengine._strategy import BaseStrategy


def train(
    cfg: TaskRun | Config | str | Path,
    *,
    resume: str | bool = False,
    amp: bool = False,
    auto_scale_lr: bool = False,
    launcher: str = 'none',
    validate: bool = True,
    skip_bad_images: bool = False,
    allow_mismatch: Sequence[str] = (),
    keep_going: bool = False,
    time: str | float | Budget | None = None,
) -> Runner:
    """Trains a model like the task library's own tool, with separate errors for bad input.

    Args:
        cfg: A run (:func:`icconv_mm.apis.load_run`) or a config with ``work_dir`` set, changed in place, or its file.
        resume: Checkpoint to resume from; True or ``'auto'`` for the latest one in ``cfg.work_dir``, if any.
        amp: Mixed precision: float16 on a GPU, bfloat16 on a CPU.
        auto_scale_lr: Whether to scale the learning rate by the batch size, as in ``cfg.auto_scale_lr``.
        launcher: Launcher of the processes: ``'none'``, ``'pytorch'`` (torchrun), ``'slurm'`` or ``'mpi'``.
        validate: Whether to validate during the training, as the config says.
        skip_bad_images: Whether to warn about unreadable images and train without them.
        allow_mismatch: Modules where ``cfg.load_from`` may differ from the model, such as ``'roi_head.bbox_head'``.
        keep_going: Whether to continue after a loss that is not finite, which otherwise ends the run.
        time: Time of the training, its validations and report included, such as ``'12m'``: its first steps are timed,
            and the length is chosen. A resumed run has what earlier ones left.

    Returns:
        The runner, after training. Its folder has ``report.html``.

    Raises:
        MissingFileError: A named file does not exist.
        InputError, DatasetError, CheckpointError, ArchitectureMismatchError: Bad input, named in the message.
    """
    budget = Budget(time) if isinstance(time, (str, int, float)) else time
    if budget is not None and int(os.environ.get('WORLD_SIZE', 1)) > 1:
        raise ArgumentError('time', 'the length is chosen by the steps of one process: give --epochs or --iters')
    purpose = Training(resume, amp, auto_scale_lr, launcher, validate, skip_bad_images)
    run = begin(cfg, purpose=purpose)
    if budget is not None and resume:
        budget.resume(run.cfg)
    folder, name = Path(run.cfg.work_dir), Path(run.cfg.filename or 'config.py').name
    goes_on = bool(resume or run.cfg.get('resume'))
    earlier = keeping_earlier_training(folder, name, run.cfg.get('load_from'), goes_on)
    with run.errors, _formatting_once(), earlier:
        runner = build_runner(run, allow_mismatch, budget and budget.given)
        if budget is not None:
            runner.register_hook(BudgetHook(budget, run.cfg))
        if not keep_going:
            runner.register_hook(FiniteLossHook())
        evaluation, bar = EvaluationHook(run.adapter), ProgressBarHook()
        runner.register_hook(evaluation)
        runner.register_hook(bar)
        interrupted = None
        with ExitStack() as ending:
            if is_main_process():
                ending.enter_context(only_run_in(Path(runner.work_dir)))
            if budget is not None:
                ending.callback(budget.store, runner.work_dir)
            try:
                with bar.shown(runner):
                    train_runner(runner)
            except KeyboardInterrupt as error:
                interrupted = error
            with warning_after_run('writing its report'):
                from icconv_mm.app.evaluation.report import write_report

                notes = ['The training was interrupted.'] if interrupted else []
                write_report(runner, evaluation, run.name, budget=budget and budget.given, notes=notes)
            if interrupted:
                raise interrupted
    return runner


@contextmanager
def _formatting_once() -> Iterator[None]:
    """Lets mmengine keep the last text: a run has that of its config formatted four times, by yapf, which is slow."""
    format_code, last = mmengine_config.FormatCode, {}

    def formatted(text: str, **style: Any) -> tuple:
        if text not in last:
            result = format_code(text, **style)
            last.clear()
            last[text] = result
        return last[text]

    mmengine_config.FormatCode = formatted
    try:
        yield
    finally:
        mmengine_config.FormatCode = format_code


def test(
    cfg: TaskRun | Config | str | Path,
    checkpoint: str,
    *,
    out: str | None = None,
    out_item: str = 'pred',
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2.0,
    tta: bool = False,
    deploy: bool = False,
    launcher: str = 'none',
) -> dict[str, float]:
    """Evaluates a checkpoint with the metrics of the config.

    Args:
        cfg: A run (:func:`icconv_mm.apis.load_run`) or a config with ``work_dir`` set, changed in place, or its file.
        checkpoint: The checkpoint, which must fit the model in every key.
        out: File for the output that ``out_item`` selects.
        out_item: ``'pred'``, the predictions as a pickle file, or ``'metrics'``, the returned metrics as a JSON file.
        show: Whether to show predictions on screen, each for ``wait_time`` seconds.
        show_dir: Folder for images with predictions.
        wait_time: Seconds per image.
        tta: Whether to average over augmented copies of each image.
        deploy: Whether to test the deployed model (:func:`icconv_mm.deploy`).
        launcher: As for :func:`icconv_mm.apis.train`.

    Returns:
        Metric names and values. mmdet's ``CocoMetric`` gives none if nothing is detected.

    Raises:
        MissingFileError: A named file does not exist.
        InputError, DatasetError, CheckpointError, ArchitectureMismatchError: Bad input, named in the message.
    """
    purpose = Testing(out, out_item, show, show_dir, wait_time, tta, launcher)
    run = begin(cfg, checkpoint, purpose)
    with run.errors, _formatting_once():
        runner = build_runner(run)
        if deploy:
            runner.register_hook(DeployHook())
        evaluation = EvaluationHook(run.adapter)
        runner.register_hook(evaluation)
        metrics = runner.test()
        with warning_after_run('writing its report'):
            from icconv_mm.app.evaluation.report import write_report

            folder = Path(runner.log_dir, 'report')
            write_report(runner, evaluation, run.name, folder=folder, checkpoint=checkpoint)
    if out is not None and out_item == 'metrics':
        master_only(dump)(metrics, out)
    return metrics


def build_runner(run: TaskRun, allow_mismatch: Sequence[str] = (), time: str | float | None = None) -> Runner:
    """Builds the runner of a prepared run, with the hooks that every run of the tools has.

    The hooks are not added to the config, so that the runner writes the user's config.

    Raises:
        InputError: mmengine would read its copy of the config differently.
    """
    cfg = run.cfg
    check_marks(run.nodes)
    if cfg.filename is not None and (copy := Path(cfg.work_dir, Path(cfg.filename).name)).is_symlink():
        copy.unlink()  # otherwise mmengine would write to the link's target
    metrics = [node.cfg for node in run.nodes if node.part in ('val_evaluator', 'test_evaluator')]
    of_task = run.adapter.hooks(cfg.get('model') or {}, metrics)
    logging.disable(logging.INFO)  # drops hundreds of mmengine's lines: environment, whole config, order of hooks
    try:
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    finally:
        logging.disable(logging.NOTSET)
    runner.logger.setLevel(runner.logger.level)  # clears the cache of disabled levels
    runner.logger.addFilter(_is_for_users)
    if cfg.get('strategy', {}).get('type') == 'FSDPStrategy':
        # without it, the optimiser of a training with FSDP cannot be resumed
        runner.strategy.load_optim_state_dict = partial(_load_shards, runner.strategy)
    for hook in runner.hooks:
        # without it, all processes of a test would write the same file of metrics at once
        if isinstance(hook, LoggerHook):
            hook.after_test_epoch = master_only(hook.after_test_epoch)
    checkpoint, resume = str(cfg.get('load_from') or 'the checkpoint'), bool(cfg.get('resume'))
    run.errors.checkpoint = checkpoint
    network = [node.kind for node in run.nodes if node.location in ('model', 'model.backbone') and node.kind]
    match = CheckpointMatchHook(allow_mismatch, checkpoint, resume, run.adapter)
    hooks = [run.errors, OpeningHook(run.name, network, time), match, ImageCheckHook(), WorkersHook(), *of_task]
    if cfg.get('train_cfg'):
        if not any(isinstance(hook, ResumableRandomnessHook) for hook in runner.hooks):
            hooks.append(ResumableRandomnessHook())
        hooks += [ScheduleHook(resume, checkpoint), UnmeasuredHook(), UnsavedStateHook(resume)]
    for hook in hooks:
        runner.register_hook(hook)
    return runner


def _is_for_users(record: logging.LogRecord) -> bool:
    """Returns whether a message is not one of those that mmengine writes to authors of libraries in every run."""
    patterns = (
        *('"FileClient" will be deprecated', '"HardDiskBackend" is the alias', 'The prefix is not set in metric class'),
        'Resumed iteration number is not divisible',  # UnsavedStateHook has the gradients, or says so
    )
    return not record.getMessage().startswith(patterns)


def check_marks(nodes: Sequence[Node]) -> None:
    """Raises InputError for text in a config that mmengine would replace when it reads its copy of the config.

    Such text comes from outside: the path of a checkpoint, a folder that was moved.
    """
    for name, text in (text for node in nodes for text in node.texts):
        if '{{' in text:
            what = 'has the template mark {{, which mmengine replaces when it reads its copy of the config'
            raise InputError(f'{name}: {text!r:.200} {what}: rename it')


def _load_shards(strategy: 'BaseStrategy', state_dict: dict) -> None:
    """Replaces mmengine's ``load_optim_state_dict``, which passes the arguments in the order of torch 2.0."""
    wrapper = strategy.optim_wrapper
    wrapper.load_state_dict(
        FullyShardedDataParallel.optim_state_dict_to_load(strategy.model, wrapper.optimizer, state_dict)
    )
