"""Predict for images, videos and cameras: drawn images, and a COCO results file, for any task.

Examples:
  icconv predict work_dirs/bccd/epoch_50.pth images/ --out-dir work_dirs/predicted
  icconv predict epoch_50.pth street.mp4 --config config.py --out-dir work_dirs/street
"""

from argparse import ArgumentParser, Namespace
from functools import partial

from icconv_mm.runner import command_line


def add_arguments(parser: ArgumentParser, is_tool: bool = False) -> None:
    """Adds the arguments."""
    command_line.add_checkpoint(parser, is_tool)
    several = 'an image, a folder, a glob pattern in quotes, a video, an address, or the number of a camera'
    parser.add_argument('inputs', metavar='input', help=several)
    parser.add_argument('--out-dir', required=True, metavar='DIR', help='gets vis/, predictions.json and images.json')
    parser.add_argument('--device', metavar='DEVICE', help='such as cpu or cuda:0; default: an accelerator if any')
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='images per forward pass')
    ahead = 'threads that read and draw while the network computes; 0 for none (default: 1)'
    parser.add_argument('--workers', type=int, default=1, metavar='N', help=ahead)
    parser.add_argument('--score-thr', type=float, default=0.3, help='draw what scores as much (default: 0.3)')
    parser.add_argument('--json-score-thr', type=float, default=0.0, help='write what scores as much (default: all)')
    parser.add_argument('--palette', metavar='NAME', help='colours for drawing: coco, voc, citys or random (detection)')
    parser.add_argument('--ann-file', metavar='FILE', help='COCO annotations whose ids the results are to use')
    tile = 'cut images into overlapping squares of so many pixels (boxes and segmentation maps)'
    parser.add_argument('--tile', type=int, metavar='PIXELS', help=tile)
    parser.add_argument('--no-draw', dest='draw', action='store_false', help='write the JSON files only')


def run(args: Namespace) -> None:
    """Predicts, and prints the written files."""
    with command_line.reporting(args.debug):
        from icconv_mm.apis import infer

        run, options = command_line.read_run(args)
        written = infer(run, **options, progress=partial(command_line.progress, description='images'))
        for path in written.values():
            print(path)
