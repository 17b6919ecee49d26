"""Checkpoints that are written whole; for one's own images, annotations beside the config in the folder of a run."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict, ZeroRedundancyOptimizer
from mmengine.runner import Runner

from icconv_mm.errors import naming
from icconv_mm.files import atomic_write
from icconv_mm.registry import HOOKS


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, which deletes the old file before it writes the new one, in the other order.

    A checkpoint is written beside its place, flushed to the disk and renamed; then ``last_checkpoint`` names it, and
    only then are older ones deleted. So a run that is killed while it saves, or whose disk is full, leaves the one
    before. Folders on a storage backend (``s3://``) are left to mmengine.

    Raises:
        InputError: The file cannot be written, such as on a full disk; the message names it.
    """

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        words = [secrets.token_hex(8)]  # of a run, in names that nobody else writes to
        broadcast_object_list(words)
        self._part = f'.{words[0]}.part'

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if not isinstance(self.file_backend, LocalBackend):
            return super()._save_checkpoint_with_step(runner, step, meta)
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
            return None
        with atomic_write(Path(runner.work_dir, 'last_checkpoint')) as file:
            file.write(self.last_ckpt.encode())
        for old in surplus:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # of deepspeed
                self.file_backend.rmtree(path)
        return None

    def _keep(self, runner: Runner, step: int) -> list[int]:
        """Enter a step among those to keep; returns those that are too many."""
        if self.max_keep_ckpts < 1 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return []
        surplus = [self.keep_ckpt_ids.popleft()] if len(self.keep_ckpt_ids) == self.max_keep_ckpts else []
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return [old for old in surplus if old != step]

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        wanted = [key for key in getattr(self, 'key_indicators', ()) or () if key != 'auto']
        if metrics and (absent := [key for key in wanted if key not in metrics]):  # mmdet's, where nothing is detected
            why = 'nothing was found, or nothing is annotated'
            runner.logger.info(f'no best checkpoint is chosen: this validation has no {", ".join(absent)} ({why})')
            return None
        if not isinstance(self.file_backend, LocalBackend):
            return super()._save_best_checkpoint(runner, metrics)
        with self._deleting_later():
            super()._save_best_checkpoint(_Saving(runner, self._part), metrics)
        return None

    @contextmanager
    def _deleting_later(self) -> Iterator[None]:
        """mmengine removes the best checkpoint so far before it saves the new one: let it be removed afterwards."""
        backend, later = self.file_backend, _DeletingLater()
        self.file_backend = later
        try:
            yield
        finally:
            self.file_backend = backend
        saved = {getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()}
        for path in later.deleted:
            if path not in saved and backend.isfile(path):
                backend.remove(path)


class _DeletingLater(LocalBackend):
    """A local backend that takes down what is to be removed."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[str] = []

    def remove(self, filepath: str) -> None:
        self.deleted.append(filepath)


class _Saving:
    """A runner whose ``save_checkpoint`` writes beside the place, to a name that ends so, flushes and renames."""

    def __init__(self, runner: Runner, ending: str) -> None:
        self._runner, self._ending = runner, ending

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, file_client_args: Any = None, **options: Any) -> None:
        place, part = Path(out_dir, filename), Path(out_dir, f'.{filename}{self._ending}')
        try:
            with naming(str(place), OSError):
                if options.get('save_optimizer', True) and not is_main_process():
                    _send_shards(self._runner.optim_wrapper)
                self._runner.save_checkpoint(out_dir, part.name, **options)
                if is_main_process():
                    _flush(part)
                    part.replace(place)
                    _flush(place.parent)
        except BaseException:
            if is_main_process() and part.is_file():
                part.unlink()
            raise


def _send_shards(wrapper: OptimWrapper | OptimWrapperDict) -> None:
    """What the main process waits for when it saves: mmengine has it alone ask for the parts of a sharded optimiser."""
    for each in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
        if isinstance(each.optimizer, ZeroRedundancyOptimizer):
            each.optimizer.consolidate_state_dict()


def _flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Where a written config lies; mmengine compiles it under its own name.
HERE = '(lambda: None).__code__.co_filename'
UNFINISHED = '.icconv_mm_'  # begins the names of folders that are being written, in that of a run


@HOOKS.register_module()
class CopyAnnotationsHook(Hook):
    """Puts the annotations of one's own images beside the config that mmengine writes into the folder of a run.

    mmengine writes where they were. Then that config finds them by its own place, and the folder may be moved.
    """

    priority = 'HIGHEST'

    def before_run(self, runner: Runner) -> None:
        folder = runner.cfg.get('annotations')
        if folder is not None and runner.cfg.filename is not None and is_main_process():
            _copy(Path(folder), Path(runner.work_dir))
            config = Path(runner.work_dir, Path(runner.cfg.filename).name)
            text = _self_locating(config.read_text(), folder)
            with atomic_write(config) as file:
                file.write(text.encode())


def _copy(folder: Path, work_dir: Path) -> None:
    """The folder of annotations in that of a run; segmentation maps as links to the same files, where they can be."""
    target, part = work_dir / folder.name, work_dir / f'{UNFINISHED}{folder.name}'
    if not target.exists():
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part, copy_function=_link)
        part.replace(target)


def _link(source: str, target: str) -> None:
    """Segmentation maps are many, and nobody edits them."""
    try:
        if not source.endswith('.png'):
            raise OSError
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _self_locating(text: str, folder: str) -> str:
    """A config that mmengine has written, with ``annotations`` in the place of the folder in all literals."""
    start = repr(folder)[:-1]  # with the quotes that Python has chosen
    text = text.replace(f'annotations = {folder!r}\n', '').replace(f'{start}/', f'annotations + {start[0]}/')
    text = text.replace('{{', '{\\x7b')  # in a path that came later, which mmengine would replace
    # a config with an import statement, mmengine reads in another way
    return f"annotations = __import__('os').path.dirname({HERE}) + '/{Path(folder).name}'\n{text}"
