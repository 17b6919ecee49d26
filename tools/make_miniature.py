"""Draw the miniature dataset: COCO-format boxes, masks and keypoints, and semantic segmentation maps.

Examples:
  python tools/make_miniature.py
  python tools/make_miniature.py DIR --train 1000 --val 200 --size 256 --seed 1
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from icconv_mm.app.commands import command_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('root', nargs='?', type=Path, default=Path('data/miniature'), help='default: %(default)s')
    parser.add_argument('--train', type=int, metavar='N', default=800, help='training images; default: %(default)s')
    parser.add_argument('--val', type=int, metavar='N', default=80, help='validation images; default: %(default)s')
    parser.add_argument('--size', type=int, default=128, help='width and height in pixels; default: %(default)s')
    parser.add_argument('--seed', type=int, metavar='N', default=0, help='default: %(default)s')
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug, interrupted='nothing was left behind'):
        from icconv_tools.miniature import MiniatureOptions, ensure_miniature

        options = MiniatureOptions(args.train, args.val, args.size, args.seed)
        drawn = ensure_miniature(args.root, options, partial(command_line.progress, description='drawing'))
    print(f'{"drawn" if drawn else "already there"}: {args.root}')


if __name__ == '__main__':
    main()
