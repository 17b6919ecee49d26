"""Train a detector, segmentor, pose estimator or classifier, as its config says.

Examples:
  python tools/train.py configs/detection/faster-rcnn_ic-r18_fpn_miniature.py --work-dir work_dirs/det
  python tools/train.py configs/detection/faster-rcnn_ic-r18_fpn_miniature.py --work-dir work_dirs/det --resume
"""

from collections.abc import Sequence

from icconv_mm.apis import config_arguments
from icconv_mm.utils import command_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    config_arguments.add_config(parser)
    config_arguments.add_work_dir(parser)
    latest = 'continue from this checkpoint; without one, from the latest in the work folder'
    parser.add_argument('--resume', nargs='?', default=False, const='auto', metavar='CHECKPOINT', help=latest)
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16, on a CPU bfloat16')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate by the batch size')
    parser.add_argument('--no-validate', dest='validate', action='store_false', help='train without validation')
    parser.add_argument('--skip-bad-images', action='store_true', help='warn about unreadable images, leave them out')
    differing = 'modules whose weights in load_from may differ from the model, such as roi_head.bbox_head'
    parser.add_argument('--allow-mismatch', nargs='+', default=[], metavar='MODULE', help=differing)
    config_arguments.add_memory_format(parser)
    config_arguments.add_launcher(parser)
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug):
        from icconv_mm.apis import train

        cfg, options = config_arguments.read_config(args)
        train(cfg, **options)


if __name__ == '__main__':
    main()
