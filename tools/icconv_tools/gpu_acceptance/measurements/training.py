"""A training run in bfloat16: boxes on the miniature dataset, as the demo trains them."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

from icconv_mm.errors import UserError
from icconv_tools import HOME
from icconv_tools.gpu_acceptance.bench import Bench, Measurement
from icconv_tools.processes import Children, python

CONFIG = HOME / 'configs/detection/faster-rcnn_ic-r18_fpn_miniature.py'
METRIC = 'coco/bbox_mAP_50'
SECONDS = 300
BFLOAT16 = ('optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.dtype=bfloat16')
DRY = {  # images and iterations of a dry run
    'data': ('--train', '8', '--val', '4', '--size', '64'),
    'train': ('train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.num_workers=0',
              'train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0',
              'val_dataloader.persistent_workers=False'),
}  # fmt: skip


def measurements(bench: Bench) -> Iterator[Measurement]:
    yield Measurement('training/boxes, bfloat16', _train, SECONDS, ('mmengine', 'mmcv', 'mmdet'))


def _train(bench: Bench) -> dict:
    """Losses and box AP50 of a training with ``tools/train.py``."""
    folder = bench.folder / 'training'
    folder.mkdir(exist_ok=True)
    _tool(folder, 'make_miniature', *DRY['data'] if bench.dry else ())
    changes = ('--amp', '--cfg-options', *DRY['train']) if bench.dry else ('--cfg-options', *BFLOAT16)
    _tool(folder, 'train', CONFIG, '--work-dir', 'run', *changes)
    newest = max((folder / 'run').glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime)
    rows = [json.loads(line) for line in newest.read_text().splitlines()]
    losses = [row['loss'] for row in rows if 'loss' in row]
    if not losses or not all(map(math.isfinite, losses)):
        raise UserError(f'{newest}: losses that are no numbers: {losses[-3:]}')
    found = [row[METRIC] for row in rows if METRIC in row]
    result = {'first loss': losses[0], 'last loss': losses[-1], METRIC: found[-1] if found else None}
    return {**result, 'summary': f'loss {losses[0]:.2f} to {losses[-1]:.2f}, {METRIC} {result[METRIC]}'}


def _tool(folder: Path, name: str, *args: object) -> None:
    """Run a tool in a folder.

    Raises:
        UserError: It fails; the message ends with the last line that it said.
    """
    command = python(HOME / 'tools' / f'{name}.py', *args)
    env = {'PYTHONPATH': os.pathsep.join([str(HOME), os.environ.get('PYTHONPATH', '')])}
    with Children() as children:
        ended = children.run(command, folder / f'{name}.log', cwd=folder, env=env)
    if ended.status:
        raise UserError(f'tools/{name}.py {ended}')
