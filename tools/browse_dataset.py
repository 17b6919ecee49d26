"""Look at a dataset as the model sees it: pictures after the config's transforms with their annotations drawn."""

import argparse

from icconv_mm.apis import cli
from icconv_mm.errors import reporting


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    cli.add_config(parser)
    parser.add_argument('--output-dir', '--out-dir', metavar='DIR', help='write the pictures to this folder')
    parser.add_argument('--phase', choices=['train', 'val', 'test'], default='train', help='which dataset')
    parser.add_argument('--count', type=int, metavar='N', help='only the first N pictures')
    parser.add_argument('--not-show', action='store_true', help='do not open a window')
    parser.add_argument('--show-interval', type=float, default=2, metavar='SECONDS', help='for each picture shown')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with reporting(args.debug):
        from tqdm import tqdm

        from icconv_mm.apis import browse, load_config

        written = browse(
            load_config(args.config, args.cfg_options),
            args.output_dir,
            phase=args.phase,
            count=args.count,
            show=not args.not_show,
            wait_time=args.show_interval,
            progress=lambda indices: tqdm(indices, desc='pictures', unit=''),
        )
        if written:
            print(f'{len(written)} pictures in {args.output_dir}')


if __name__ == '__main__':
    main()
