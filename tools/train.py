"""Train a detector, segmenter, pose estimator or classifier, as its config says."""

import argparse

from icconv_mm.apis import cli
from icconv_mm.errors import reporting


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    cli.add_config(parser)
    cli.add_work_dir(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        default=False,
        const='auto',
        metavar='CHECKPOINT',
        help='continue from this checkpoint; without one, from the latest in the work folder',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: float16 on an accelerator, bfloat16 on a CPU'
    )
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate by the batch size (auto_scale_lr)'
    )
    parser.add_argument(
        '--skip-bad-images', action='store_true', help='warn about unreadable pictures and train without them'
    )
    parser.add_argument(
        '--allow-mismatch',
        nargs='+',
        default=[],
        metavar='MODULE',
        help='modules whose weights in load_from may differ from the model, such as roi_head.bbox_head',
    )
    cli.add_launcher(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with reporting(args.debug):
        from icconv_mm.apis import train

        cfg, options = cli.read_config(args)
        train(cfg, **options)


if __name__ == '__main__':
    main()
