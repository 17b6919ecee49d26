"""Predict for images, videos and cameras: drawn images, and a COCO results file, for any task.

CHECKPOINT is a checkpoint, the folder of a training, whose best one is taken, or an exported file (.onnx, .xml).
Several processes share the images out with --shard, or started by torchrun; the last one writes the files of all.

Examples:
  icconv predict work_dirs/bccd images/ --out-dir work_dirs/predicted
  icconv predict network.onnx images/ --to labelstudio --out-dir work_dirs/to_correct
  icconv predict work_dirs/bccd unlabelled/ --pick 50 --to labelstudio --out-dir work_dirs/to_annotate
  icconv predict network.onnx street.mp4 --track --out-dir work_dirs/tracked
  icconv predict network.onnx images/ --resume --out-dir work_dirs/predicted
  icconv predict network.onnx images/ --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT --out-dir work_dirs/all
"""

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from functools import partial

from icconv_mm.app.commands import command_line
from icconv_mm.errors import ArgumentError
from icconv_mm.files import is_exported


def _shard(text: str) -> tuple[int, int]:
    """Returns ``I/N`` as two numbers."""
    number, _, count = text.partition('/')
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ArgumentTypeError(f'expected I/N, I from 1 to N, such as 1/4, got {text}')
    return int(number), int(count)


def add_arguments(parser: ArgumentParser, is_tool: bool = False) -> None:
    """Adds the arguments."""
    command_line.add_checkpoint(parser, is_tool)
    several = "image, folder (not those in it), quoted pattern ('DIR/**/*'), video, address, or number of a camera"
    parser.add_argument('inputs', metavar='input', help=several)
    files = 'gets vis/ (of a video NAME.mp4), predictions.json and images.json'
    parser.add_argument('--out-dir', required=True, metavar='DIR', help=files)
    parser.add_argument('--device', metavar='DEVICE', help='such as cpu or cuda:0; default: an accelerator if any')
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='images per forward pass')
    ahead = 'threads that read and draw while the network computes; 0 for none (default: 1)'
    parser.add_argument('--workers', type=int, default=1, metavar='N', help=ahead)
    least = 'draw what scores as much (default: the best of each class on the validation images, else 0.3)'
    parser.add_argument('--score-thr', type=float, help=least)
    parser.add_argument('--json-score-thr', type=float, default=0.0, help='write what scores as much (default: all)')
    parser.add_argument('--palette', metavar='NAME', help='colours for drawing: coco, voc, citys or random (detection)')
    parser.add_argument('--ann-file', metavar='FILE', help='COCO annotations whose ids the results are to use')
    tile = 'cut images into overlapping squares of so many pixels (boxes and segmentation maps)'
    parser.add_argument('--tile', type=int, metavar='PIXELS', help=tile)
    formats = 'coco', 'yolo', 'labelstudio', 'cvat'
    parser.add_argument('--to', choices=formats, help='also write what is drawn in images for another tool to correct')
    parser.add_argument('--copy', action='store_true', help='copy the images of --to; by default they are linked')
    next_ones = 'pick N images to annotate next: pick.txt, a page pick.html, and only these for --to'
    parser.add_argument('--pick', type=int, metavar='N', help=next_ones)
    numbers = 'number the boxes or masks of a video from frame to frame (needs the library trackers)'
    parser.add_argument('--track', action='store_true', help=numbers)
    part = 'predict the I-th of N parts of the images (default: as torchrun says, else all)'
    parser.add_argument('--shard', type=_shard, metavar='I/N', help=part)
    again = 'go on where the same command was ended, by Ctrl-C, SIGTERM or otherwise'
    parser.add_argument('--resume', action='store_true', help=again)
    parser.add_argument('--no-draw', dest='draw', action='store_false', help='write the JSON files only')


def run(args: Namespace) -> None:
    """Predicts, and prints the written files."""
    with command_line.reporting(args.debug):
        from icconv_mm.app.prediction.predict import infer

        rank, processes = (os.environ.get(name) for name in ('RANK', 'WORLD_SIZE'))  # as torchrun sets them
        if rank is not None and processes is not None and int(processes) > 1:
            args.shard = args.shard or (int(rank) + 1, int(processes))
            args.device = args.device or _own_device()
        if is_exported(args.checkpoint):
            run, options = None, _options_of_exported(args)
        else:
            run, options = command_line.read_run(args)
        written = infer(run, **options, progress=partial(command_line.progress, description='images'))
        for path in written.values():
            print(path)


def _own_device() -> str | None:
    """Returns the GPU of this process of several on a machine; None without one."""
    import torch

    return f'cuda:{os.environ.get("LOCAL_RANK", 0)}' if torch.cuda.is_available() else None


def _options_of_exported(args: Namespace) -> dict:
    """Returns the arguments for an exported file, which has no config.

    Raises:
        ArgumentError: An option of the config is given.
    """
    rest = vars(args).copy()
    for name, option in (('config', 'config'), ('cfg_options', 'options')):
        if rest.pop(name, None):
            raise ArgumentError(option, f'{args.checkpoint} is an exported file, which has no config')
    del rest['debug']
    return rest
