"""What a run is for: each purpose prepares a config, and checks that the files that the run needs exist.

The adapter of the task makes the changes that differ between tasks (``showing``, ``enable_tta``).
"""

import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device, is_cuda_available
from mmengine.dist import is_main_process

from icconv_mm.app.runs.backbone_defaults import write_defaults
from icconv_mm.app.runs.begin import Purpose, TaskRun
from icconv_mm.app.runs.workers import fit_workers
from icconv_mm.arguments import require_known
from icconv_mm.checkpoints import reading
from icconv_mm.checkpoints.metadata import seed_of
from icconv_mm.config_tree import Node, as_list
from icconv_mm.datasets.checks import MissingDataError
from icconv_mm.datasets.loading import LoadImageFromFile
from icconv_mm.engine.amp import CPUAmpOptimWrapper
from icconv_mm.engine.saving import AtomicCheckpointHook
from icconv_mm.errors import ArgumentError, InputError, naming
from icconv_mm.files import require_file, require_folder, require_writable
from icconv_mm.layers import DeformConv2d, ModulatedDeformConv2d
from icconv_mm.patterns.load import own_file
from icconv_mm.registry import LIBRARIES, scoped
from icconv_mm.run_folder import last_checkpoint

_DEFORMABLE = {'DCN': DeformConv2d, 'DCNv2': ModulatedDeformConv2d}  # mmcv's names, and the layers of the same keys


class UnknownTaskError(InputError):
    """Raised if a config is not for a known task."""


def prepare(run: TaskRun, *parts: str, skip_bad_images: bool = False) -> None:
    """Prepares a config for any run, in one pass.

    Images are checked when they are read, a CPU gets plain batch norm and this package's deformable convolutions, each
    run gets its own visualiser, and the files in some parts of the config must exist.

    Args:
        run: The run.
        parts: The parts of the config whose files must all exist, such as ``'train_dataloader'``.
        skip_bad_images: Whether to train without images that cannot be read.

    Raises:
        UnknownTaskError: The config is not for a known task.
        MissingFileError: A file does not exist.
    """
    if not run.adapter.library:
        raise UnknownTaskError(f'{run.name}: default_scope = {run.scope!r}, expected one of {", ".join(LIBRARIES)}')
    on_cpu = get_device() == 'cpu'
    for node in run.nodes:
        settings, part, kind = node.cfg, node.part, node.kind
        if kind in ('LoadImageFromFile', 'LoadImage'):
            settings['type'] = scoped(LoadImageFromFile)
            if skip_bad_images and part in ('train_dataloader', 'custom_hooks'):  # hooks change the pipeline
                settings['skip_bad'] = True
        elif settings.get('type') == 'SyncBN' and on_cpu:  # torch's SyncBatchNorm refuses CPU tensors
            settings['type'] = 'BN'
        elif kind in _DEFORMABLE and on_cpu:  # a small part of the time of mmcv's operator
            settings['type'] = scoped(_DEFORMABLE[kind])
        elif part in parts:
            _require_files(node)
    run.adapter.prepare_loaders(run.datasets, run.cfg.get('model') or {})
    # mmengine shares visualisers by name in a process; without a name, each run has its own, in its own folder.
    (run.cfg.get('visualizer') or {}).pop('name', None)


def _require_files(node: Node) -> None:
    """Raises MissingFileError for the first file of a dataset, a metric or pretrained weights that does not exist."""
    if node.kind == 'Pretrained' and '://' not in (path := node.cfg.get('checkpoint') or '://'):
        require_file(Path(path).expanduser(), f'{node.location}.checkpoint')
    for name, path, is_folder in node.data_paths:
        (require_folder if is_folder else require_file)(path, name, MissingDataError)


class Predicting(Purpose):
    """Predictions of single images."""

    def prepare(self, run: TaskRun) -> None:
        prepare(run)


@dataclass(frozen=True)
class Browsing(Purpose):
    """Drawn annotations of the dataset of a phase: ``'train'``, ``'val'`` or ``'test'``."""

    phase: str = 'train'

    def prepare(self, run: TaskRun) -> None:
        if not run.datasets[self.phase]:
            raise InputError(f'{run.name}: no {self.phase}_dataloader')
        prepare(run, f'{self.phase}_dataloader')


@dataclass(frozen=True)
class Training(Purpose):
    """A training, with the options of :func:`icconv_mm.apis.train`."""

    resume: str | bool = False
    amp: bool = False
    auto_scale_lr: bool = False
    launcher: str = 'none'
    validate: bool = True
    skip_bad_images: bool = False

    def prepare(self, run: TaskRun) -> None:
        cfg = run.cfg
        if not self.validate:
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
            run.changed()
        _distribute(cfg, self.launcher)
        if self.amp:
            _use_amp(cfg, run.adapter.autocast_modules)
        if self.auto_scale_lr:
            if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
                raise ArgumentError('auto_scale_lr', f'{cfg.filename} has no auto_scale_lr.base_batch_size')
            cfg.auto_scale_lr.enable = True
        saving = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        if saving.get('type') == 'CheckpointHook':  # it deletes the last checkpoint before it writes the next one
            saving['type'] = scoped(AtomicCheckpointHook)
        parts = ('model', 'train_dataloader', 'val_dataloader', 'val_evaluator')
        prepare(run, *parts, skip_bad_images=self.skip_bad_images)
        fit_workers(run.nodes, ('train_dataloader', 'val_dataloader'))
        write_defaults(run.nodes)
        for node in run.nodes:  # the network is to be built in any folder
            if node.part == 'model' and (file := own_file(node.cfg.get('pattern'))):
                node.cfg['pattern'] = str(file.absolute())
        last = last_checkpoint(cfg.work_dir) if self.resume in (True, 'auto') else self.resume
        if last:
            cfg.resume, cfg.load_from = True, str(last)
        elif self.resume and is_main_process():
            print(f'{cfg.work_dir}: no checkpoint to resume, the training starts at 0', file=sys.stderr)
        path = cfg.get('load_from')
        if path and not Path(path).is_dir():  # strategies that shard a model save a folder
            require_file(path, 'resume' if last else 'load_from')
        if last and cfg.get('randomness', {}).get('seed') is None and Path(last).is_file():
            content = reading.read(str(last))
            with naming(str(last)):  # samplers are built before the checkpoint is loaded
                cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed_of(content)}


@dataclass(frozen=True)
class Testing(Purpose):
    """A test of the run's checkpoint, with the options of :func:`icconv_mm.apis.test`."""

    out: str | None = None
    out_item: str = 'pred'
    show: bool = False
    show_dir: str | None = None
    wait_time: float = 2.0
    tta: bool = False
    launcher: str = 'none'

    def prepare(self, run: TaskRun) -> None:
        cfg, out = run.cfg, self.out
        _distribute(cfg, self.launcher)
        prepare(run, 'test_dataloader', 'test_evaluator')
        fit_workers(run.nodes, ('test_dataloader',))
        cfg.load_from, cfg.resume = str(Path(run.checkpoint).expanduser()), False
        if self.show or self.show_dir:
            folder = self.show_dir and str(Path(self.show_dir).absolute())
            cfg.default_hooks.visualization, save_dir = run.adapter.showing(self.show, folder, self.wait_time)
            if save_dir:
                cfg.visualizer.save_dir = save_dir
        if self.tta:
            run.adapter.enable_tta(cfg)
        require_known([self.out_item], ('pred', 'metrics'), 'out_item: nothing is called')
        if out is not None:
            endings = ('.json',) if self.out_item == 'metrics' else ('.pkl', '.pickle')
            if not out.endswith(endings):
                raise ArgumentError('out', f'expected a name that ends in {endings[0]}, got {out}')
            require_writable(Path(out), 'out')  # it is written after the test
        if out is not None and self.out_item == 'pred':
            dump = {'type': run.adapter.dump_metric, 'out_file_path': out}
            cfg.test_evaluator = [*as_list(cfg.test_evaluator), dump]


def _distribute(cfg: Config, launcher: str) -> None:
    """Sets ``cfg.launcher``; without an accelerator, distributed runs use gloo."""
    cfg.launcher = launcher
    strategy = cfg.get('strategy') or {}
    is_sharded = strategy.get('type') == 'FSDPStrategy'
    if is_sharded and strategy.setdefault('state_dict_cfg', 'full') == 'local':  # mmengine's default
        raise InputError(
            "strategy.state_dict_cfg: 'local' writes the shards of each process, which are no plain tensors, and no "
            "run could resume from them: give 'full'"
        )
    if get_device() != 'cpu' or launcher == 'none':
        return
    # mmengine would call torch.cuda.set_device for any backend; it keeps an existing process group.
    timeout = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
    if launcher == 'pytorch' and not torch.distributed.is_initialized():
        try:
            options = {} if timeout is None else {'timeout': timedelta(seconds=timeout)}  # torch 2.1 takes no None
            torch.distributed.init_process_group('gloo', **options)
        except ValueError as error:  # the environment has no RANK, WORLD_SIZE, ...
            raise ArgumentError('launcher', f'pytorch: the process was not started by torchrun ({error})') from None
    cfg.setdefault('env_cfg', {})['dist_cfg'] = {'backend': 'gloo'}
    wrapper = {
        'type': 'MMDistributedDataParallel',
        'device_ids': None,  # required on CPU
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
    }
    if 'runner_type' not in cfg:
        cfg.setdefault('model_wrapper_cfg', wrapper)
    elif strategy.get('type') == 'DDPStrategy':
        strategy.setdefault('model_wrapper', wrapper)
    elif is_sharded:
        strategy.setdefault('model_wrapper', {'type': 'MMFullyShardedDataParallel'}).setdefault('device_id', 'cpu')
        if strategy.state_dict_cfg == 'full':  # mmengine's moves shards to the CPU; torch 2.11 crashes if they are
            strategy.state_dict_cfg = {
                'state_dict_type': 'FULL_STATE_DICT',
                'state_dict_config': {'type': 'FullStateDictConfig'},
                'optim_state_dict_config': {'type': 'FullOptimStateDictConfig'},
            }


def _use_amp(cfg: Config, modules: tuple[str, ...] | None) -> None:
    """Sets mixed precision for this machine; on a CPU only for the children ``modules`` of the model, None for all."""
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', scoped(CPUAmpOptimWrapper)):
        raise ArgumentError('amp', f'optim_wrapper.type is {kind!r}, expected OptimWrapper')
    if is_cuda_available():
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    else:
        for option in ('loss_scale', 'dtype', 'use_fsdp'):  # only for AmpOptimWrapper
            wrapper.pop(option, None)
        wrapper.type = scoped(CPUAmpOptimWrapper)
        wrapper.setdefault('modules', modules)
