"""Test a checkpoint of any task with the metrics of its config.

Examples:
  icconv test work_dirs/bccd
  icconv test epoch_50.pth --config config.py --show-dir work_dirs/shown --cfg-options test_dataloader.batch_size=4
"""

import gc
from argparse import ArgumentParser, Namespace

from icconv_mm.app.commands import command_line


def add_arguments(parser: ArgumentParser, is_tool: bool = False) -> None:
    """Adds the arguments."""
    command_line.add_checkpoint(parser, is_tool)
    beside = 'test beside the checkpoint; with --config, work_dirs/CONFIG_NAME'
    command_line.add_work_dir(parser, **({} if is_tool else {'default': beside}))
    parser.add_argument('--out', '--dump', metavar='FILE', help='write the predictions, or what --out-item says')
    items = 'of --out: the predictions to FILE.pkl (default), or the metrics to FILE.json'
    parser.add_argument('--out-item', choices=('pred', 'metrics'), default='pred', help=items)
    parser.add_argument('--show', action='store_true', help='show the predictions on screen')
    parser.add_argument('--show-dir', metavar='DIR', help='write images with the predictions below this folder')
    parser.add_argument('--wait-time', type=float, default=2, metavar='SECONDS', help='for each image shown')
    parser.add_argument('--tta', action='store_true', help='average over augmented copies of each image')
    parser.add_argument('--deploy', action='store_true', help='test the deployed model: norms folded, ReLUs fused')
    command_line.add_launcher(parser)


def run(args: Namespace) -> None:
    """Tests."""
    with command_line.reporting(args.debug):
        from icconv_mm.app.training.train import test

        run, options = command_line.read_run(args)
        gc.freeze()  # mmengine collects at every dataset, half a second for all that has been imported
        if not test(run, **options):
            print('no metric: the model predicted nothing')
