"""A folder with a tiny miniature dataset in which the tools run."""

import gc
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

from icconv_tools.miniature import MiniatureOptions

SUPPORT = Path(__file__).parent  # modules that the configs of these tests import
TINY = MiniatureOptions(train=12, val=4, size=64)
DETECTION = 'detection/faster-rcnn_ic-r18_fpn_miniature.py'
INSTANCE = 'instance_segmentation/mask-rcnn_ic-r18_fpn_miniature.py'
SEMANTIC = 'semantic_segmentation/fpn_ic-r18_miniature.py'


class Workspace:
    """A folder with ``data/miniature`` in which tools run.

    Args:
        root: The folder.
        repo: The checkout.
    """

    def __init__(self, root: Path, repo: Path) -> None:
        self.root = root
        self.repo = repo

    def config(self, name: str) -> str:
        return str(self.repo / 'configs' / name)

    def derive(self, name: str, base: str, text: str) -> str:
        """Write a config that inherits from a config of the repository."""
        path = self.root / f'{name}.py'
        path.write_text(f'_base_ = [{self.config(base)!r}]\n{text}\n')
        return str(path)

    def tool(self, name: str, *args) -> str | None:
        """Run a tool in this process, where the libraries are loaded already; returns its error message, if any."""
        before = os.getcwd(), sys.argv
        os.chdir(self.root)
        # Python 3.11 cannot parse a config while it collects garbage whose finalizer parses, too (cpython 106905).
        gc.collect()
        _forget_runs()
        sys.argv = [name, *map(str, args)]
        try:
            runpy.run_path(str(self.repo / 'tools' / f'{name}.py'), run_name='__main__')
        except SystemExit as end:
            return end.code
        finally:
            os.chdir(before[0])
            sys.argv = before[1]

    def run(self, *command, check: bool = True) -> subprocess.CompletedProcess:
        """Run a command here, as a process of its own."""
        env = {
            **os.environ,
            'PYTHONPATH': f'{SUPPORT}{os.pathsep}{self.repo}',
            'PYTHONWARNINGS': 'ignore',
            'OMP_NUM_THREADS': '1',
        }
        run = subprocess.run([str(part) for part in command], cwd=self.root, env=env, capture_output=True, text=True)
        assert not check or run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
        return run

    def scalars(self, work_dir: str) -> list[dict]:
        """What the latest run in a work folder has logged, one dict per line."""
        files = sorted((self.root / work_dir).glob('*/vis_data/scalars.json'))
        return [json.loads(line) for line in files[-1].read_text().splitlines()]

    def losses(self, work_dir: str) -> dict[int, float]:
        """Loss by iteration."""
        return {line['step']: line['loss'] for line in self.scalars(work_dir) if 'loss' in line}


def _forget_runs() -> None:
    """mmengine names a run by its second; a process that has run one of that name logs the next into its folder."""
    from mmengine.logging import MessageHub
    from mmengine.visualization import Visualizer

    kinds = [MessageHub, Visualizer]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        kind._instance_dict.clear()


def short(iterations: int, **options) -> list[str]:
    """``--cfg-options`` that end a miniature run after a few iterations and log each of them by itself."""
    options = {
        'train_cfg.max_iters': iterations,
        'train_cfg.val_interval': iterations,
        'default_hooks.checkpoint.interval': iterations,
        'default_hooks.logger.interval': 1,
        'log_processor.window_size': 1,
        'train_dataloader.batch_size': 4,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
        'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
        **options,
    }
    return ['--cfg-options', *(f'{key}={value}' for key, value in options.items())]
