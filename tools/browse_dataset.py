"""Look at a dataset as the model sees it: images after the config's transforms with their annotations drawn.

Examples:
  python tools/browse_dataset.py CONFIG --not-show --out-dir work_dirs/browse --count 20
"""

import argparse
from collections.abc import Sequence
from functools import partial

from icconv_mm.app.commands import command_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    command_line.add_config(parser)
    parser.add_argument('--out-dir', metavar='DIR', help='write the images to this folder')
    parser.add_argument('--output-dir', dest='out_dir', help=argparse.SUPPRESS)  # as the task libraries' tools call it
    parser.add_argument('--phase', choices=['train', 'val', 'test'], default='train', help='which dataset')
    parser.add_argument('--count', type=int, metavar='N', help='only the first N images')
    parser.add_argument('--not-show', dest='show', action='store_false', help='do not open a window')
    parser.add_argument(
        '--show-interval', dest='wait_time', type=float, default=2, metavar='SECONDS', help='for each image shown'
    )
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug):
        from icconv_mm.apis import browse

        run, options = command_line.read_run(args)
        written = browse(run, **options, progress=partial(command_line.progress, description='images'))
        if written:
            print(f'{len(written)} images in {args.out_dir}')


if __name__ == '__main__':
    main()
