"""Draw the miniature dataset: COCO-format boxes, masks and keypoints, and semantic label maps.

Examples:
  python tools/make_miniature.py
  python tools/make_miniature.py DIR --train 1000 --val 200 --size 256 --seed 1
  python tools/make_miniature.py data/miniature_scales --scales --distances 16 32
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from icconv_mm.utils import command_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('root', nargs='?', type=Path, default=Path('data/miniature'), help='default: %(default)s')
    parser.add_argument('--train', type=int, metavar='N', help='training images; default: 800, with --scales 400')
    parser.add_argument('--val', type=int, metavar='N', help='validation images; default: 80, with --scales 100')
    parser.add_argument('--size', type=int, help='width and height in pixels; default: 128')
    parser.add_argument('--seed', type=int, metavar='N', help='default: 0')
    parser.add_argument('--scales', action='store_true', help='the harder set of scales and planted distances')
    parser.add_argument('--test', type=int, metavar='N', help='test images, which --scales has; default: 200')
    parser.add_argument(
        '--distances', type=int, nargs='+', metavar='D', help='planted distances of --scales in pixels; default: 24'
    )
    args = parser.parse_args(argv)
    names = ('train', 'val', 'size', 'seed', *(('test', 'distances') if args.scales else ()))
    if not args.scales and (args.test is not None or args.distances is not None):
        parser.error('--test and --distances are of --scales')
    from icconv_mm.datasets.miniature import MiniatureOptions, ensure_miniature
    from icconv_mm.datasets.miniature.scales import ScalesOptions

    with command_line.reporting(args.debug, interrupted='nothing was left behind'):
        given = {name: value for name in names if (value := getattr(args, name)) is not None}
        options = (ScalesOptions if args.scales else MiniatureOptions)(**given)
        drawn = ensure_miniature(args.root, options, partial(command_line.progress, description='drawing'))
    print(f'{"drawn" if drawn else "already there"}: {args.root}')


if __name__ == '__main__':
    main()
