"""Hooks that write checkpoints atomically, and copy the user's annotations into the run's folder."""

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapperDict, ZeroRedundancyOptimizer
from mmengine.runner import Runner

from icconv_mm.errors import naming
from icconv_mm.files import atomic_write, copy_annotations, write_folder_of_images
from icconv_mm.registry import HOOKS
from icconv_mm.run_folder import BESIDE, IMAGES, write_last


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, but it writes the new checkpoint before it deletes the old one.

    A checkpoint is written to a temporary name beside its own, flushed to the disk and renamed; then
    ``last_checkpoint`` is updated, and only then are older checkpoints deleted. A run that is killed while it saves, or
    whose disk is full, therefore keeps the previous checkpoint. Folders on a storage backend (``s3://``) are left to
    mmengine.

    Raises:
        InputError: The file cannot be written, for example because the disk is full; the message names the file.
    """

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        words = [secrets.token_hex(8)]  # part of temporary names, unique to this run
        broadcast_object_list(words)
        self._part = f'.{words[0]}.part'

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if not isinstance(self.file_backend, LocalBackend):
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        surplus = self._keep(runner, step)
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        options = dict(save_optimizer=self.save_optimizer, save_param_scheduler=self.save_param_scheduler, meta=meta)
        saving = runner if isinstance(runner, _Saving) else _Saving(runner, self._part)
        saving.save_checkpoint(
            self.out_dir, filename, by_epoch=self.by_epoch, backend_args=self.backend_args, **options, **self.args
        )
        if not is_main_process():
            return
        write_last(runner.work_dir, self.last_ckpt)
        for old in surplus:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # written by deepspeed
                self.file_backend.rmtree(path)

    def _keep(self, runner: Runner, step: int) -> list[int]:
        """Adds a step to those to keep; returns the steps whose checkpoints are to be deleted."""
        if self.max_keep_ckpts < 1 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return []
        surplus = [self.keep_ckpt_ids.popleft()] if len(self.keep_ckpt_ids) == self.max_keep_ckpts else []
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return [old for old in surplus if old != step]

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        wanted = [key for key in getattr(self, 'key_indicators', ()) or () if key != 'auto']
        if metrics and (absent := [key for key in wanted if key not in metrics]):  # mmdet's, if nothing is detected
            why = 'nothing was found, or nothing is annotated'
            runner.logger.info(f'no best checkpoint is chosen: this validation has no {", ".join(absent)} ({why})')
            return
        if not isinstance(self.file_backend, LocalBackend):
            super()._save_best_checkpoint(runner, metrics)
            return
        # mmengine removes the former best checkpoint before it saves the new one
        backend, later = self.file_backend, _DeletingLater()
        self.file_backend = later
        try:
            super()._save_best_checkpoint(_Saving(runner, self._part), metrics)
        finally:
            self.file_backend = backend
        saved = {getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()}
        for path in later.deleted:
            if path not in saved and backend.isfile(path):
                backend.remove(path)


class _DeletingLater(LocalBackend):
    """Local backend that records the files to remove instead of removing them."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[str] = []

    def remove(self, filepath: str) -> None:
        self.deleted.append(filepath)


class _Saving:
    """Wraps a runner so that ``save_checkpoint`` writes to a temporary name with this ending, flushes and renames."""

    def __init__(self, runner: Runner, ending: str) -> None:
        self._runner, self._ending = runner, ending

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, file_client_args: Any = None, **options: Any) -> None:
        path, part = Path(out_dir, filename), Path(out_dir, f'.{filename}{self._ending}')
        try:
            with naming(str(path), OSError):
                if options.get('save_optimizer', True) and not is_main_process():
                    # the main process gathers the optimiser's shards, and waits for those of the others
                    wrapper = self._runner.optim_wrapper
                    for optimizer in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
                        if isinstance(optimizer.optimizer, ZeroRedundancyOptimizer):
                            optimizer.optimizer.consolidate_state_dict()
                self._runner.save_checkpoint(out_dir, part.name, **options)
                if is_main_process():
                    _flush(part)
                    part.replace(path)
                    _flush(path.parent)
        except BaseException:
            if is_main_process() and part.is_file():
                part.unlink()
            raise


def _flush(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


UNFINISHED = '.icconv_mm_'  # prefix of unfinished folders inside the folder of a run


@HOOKS.register_module()
class CopyAnnotationsHook(Hook):
    """Copies annotations and a pattern file beside the config that mmengine writes into the folder of a run.

    mmengine writes the original locations. The hook makes these and that of the images relative to the config, so that
    the folder may be moved, alone or together with the images.
    """

    priority = 'HIGHEST'

    def before_run(self, runner: Runner) -> None:
        folder, work_dir = runner.cfg.get('annotations'), Path(runner.work_dir)
        if folder is None or runner.cfg.filename is None or not is_main_process():
            return
        name = Path(folder).name
        if not (work_dir / name).exists():
            part = work_dir / f'{UNFINISHED}{name}'
            shutil.rmtree(part, ignore_errors=True)
            copy_annotations(folder, part)
            if images := runner.cfg.get('images'):
                write_folder_of_images(part, images, work_dir / name)
            part.replace(work_dir / name)
        config = work_dir / Path(runner.cfg.filename).name
        start = repr(folder)[:-1]  # with the quotes that repr chose
        text = config.read_text().replace(f'annotations = {folder!r}\n', '')
        text = text.replace(f'{start}/', f'annotations + {start[0]}/')
        lines = [f"annotations = {BESIDE} + '/{name}'"]
        if images := runner.cfg.get('images'):
            text = text.replace(f'images = {images!r}\n', '').replace(repr(images), 'images')
            lines.append(IMAGES)
        pattern = (runner.cfg.model.get('backbone') or {}).get('pattern')
        if isinstance(pattern, str) and Path(pattern).is_absolute():  # a file of the user's
            with suppress(shutil.SameFileError):
                shutil.copyfile(pattern, work_dir / Path(pattern).name)
            text = text.replace(repr(pattern), f'{BESIDE} + {f"/{Path(pattern).name}"!r}')
        text = text.replace('{{', '{\\x7b')  # in a path, which mmengine would replace
        text = '\n'.join([*lines, text])
        with atomic_write(config) as file:
            file.write(text.encode())
