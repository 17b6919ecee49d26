"""The hook of configs for one's own images, which completes the copy of the config in the folder of a run."""

import os
import shutil
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from icconv_mm.files import atomic_write
from icconv_mm.registry import HOOKS

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
