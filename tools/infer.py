"""Predict for an image, a folder or a glob pattern: drawn images and a COCO results file, for any task.

Examples:
  python tools/infer.py CONFIG CHECKPOINT data/miniature/val --out-dir work_dirs/inferred
"""

from collections.abc import Sequence
from functools import partial

from icconv_mm.apis import config_arguments
from icconv_mm.utils import command_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    config_arguments.add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint file; it must fit the model in every key')
    parser.add_argument('inputs', metavar='input', help='an image, a folder of images, or a glob pattern in quotes')
    parser.add_argument('--out-dir', required=True, metavar='DIR', help='gets vis/, predictions.json and images.json')
    parser.add_argument('--device', metavar='DEVICE', help='such as cpu or cuda:0; default: an accelerator if any')
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='images per forward pass')
    parser.add_argument('--score-thr', type=float, default=0.3, help='draw what scores as much (default: 0.3)')
    parser.add_argument('--json-score-thr', type=float, default=0.0, help='write what scores as much (default: all)')
    parser.add_argument('--palette', metavar='NAME', help='colours for drawing: coco, voc, citys or random (detection)')
    parser.add_argument('--ann-file', metavar='FILE', help='COCO annotations whose ids the results are to use')
    parser.add_argument('--no-draw', dest='draw', action='store_false', help='write the JSON files only')
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug):
        from icconv_mm.apis import infer

        cfg, options = config_arguments.read_config(args)
        written = infer(cfg, **options, progress=partial(command_line.progress, description='images'))
        for path in written.values():
            print(path)


if __name__ == '__main__':
    main()
