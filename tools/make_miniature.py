"""Draw the miniature dataset: COCO-format boxes, masks and keypoints, and semantic label maps."""

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('root', nargs='?', type=Path, default=Path('data/miniature'), help='default: %(default)s')
    parser.add_argument('--train', type=int, default=800, help='training pictures; default: %(default)s')
    parser.add_argument('--val', type=int, default=80, help='validation pictures; default: %(default)s')
    parser.add_argument('--size', type=int, default=128, help='width and height in pixels; default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from rich.progress import track

    from icconv_mm.datasets.miniature import MiniatureOptions, ensure_miniature
    from icconv_mm.errors import reporting

    with reporting(interrupted='nothing was left behind'):
        options = MiniatureOptions(args.train, args.val, args.size, args.seed)
        drawn = ensure_miniature(args.root, options, lambda pairs: track(pairs, 'drawing'))
    print(f'{"drawn" if drawn else "already there"}: {args.root}')


if __name__ == '__main__':
    main()
