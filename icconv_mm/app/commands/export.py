"""Write a trained network as one file that runs without this package and, but for pt2 and program, without torch.

The results of the file are compared with those of the model before it is written; the report says how far they are from
each other. What runs the file: python -m icconv_mm_runtime, see docs/export.md.

Examples:
  icconv export work_dirs/bccd --to onnx --out network.onnx
  icconv export epoch_50.pth --config config.py --to openvino --images images/
  icconv export epoch_50.pth --config config.py --int8 images/ --out network_int8.onnx
"""

import gc
import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from icconv_mm.app.commands import command_line


def _size(text: str) -> tuple[int, ...]:
    """Returns ``HxW`` as two numbers, ``1xHxW`` as three."""
    sides = text.removeprefix('1x').split('x') if text.count('x') == 2 else text.split('x')
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ArgumentTypeError(f'expected HEIGHTxWIDTH, such as 640x640, or 1xHEIGHTxWIDTH, got {text}')
    return *([1] if text.count('x') == 2 else []), *map(int, sides)


def add_arguments(parser: ArgumentParser, is_tool: bool = False) -> None:
    """Adds the arguments."""
    command_line.add_checkpoint(parser, is_tool)
    formats = 'onnx', 'openvino', 'pt2', 'program'
    parser.add_argument('--to', choices=formats, default='onnx', help='format; default: onnx')
    parser.add_argument('--out', metavar='FILE', help='the file (default: that of the checkpoint with another suffix)')
    parser.add_argument('--images', metavar='DIR', help="images of the check; default: some of the config's test set")
    parser.add_argument('--fixed', type=_size, metavar='[1x]HxW', help='size of every input, or batch; free by default')
    parser.add_argument('--int8', metavar='DIR', help='compute in 8 bits, with ranges as measured on these images')
    parser.add_argument('--half', action='store_true', help='compute in float16, for GPUs; decode in float32')
    parser.add_argument('--operator', action='store_true', help="with pt2: keep this package's own convolution")
    parser.add_argument(
        '--deform-conv', action='store_true', help="with onnx: ONNX's operator for deformable convolutions"
    )


def run(args: Namespace) -> None:
    """Exports, and prints the report."""
    with command_line.reporting(args.debug, after='Nothing was written.'):
        from icconv_mm.app.export.export import export
        from icconv_mm.datasets.reading import no_garbage_search

        with no_garbage_search():  # imports of the libraries
            run, options = command_line.read_run(args)
        gc.freeze()  # what has been imported is searched no more
        print(json.dumps(export(run, **options), indent=2))
