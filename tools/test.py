"""Test a checkpoint of any task with the metrics of its config.

Examples:
  python tools/test.py CONFIG CHECKPOINT
  python tools/test.py CONFIG CHECKPOINT --show-dir work_dirs/shown --cfg-options test_dataloader.batch_size=4
"""

from collections.abc import Sequence

from icconv_mm.runner import command_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    command_line.add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint file; it must fit the model in every key')
    command_line.add_work_dir(parser)
    parser.add_argument('--out', '--dump', metavar='FILE', help='write the predictions, or what --out-item says')
    items = 'of --out: the predictions to FILE.pkl (default), or the metrics to FILE.json'
    parser.add_argument('--out-item', choices=('pred', 'metrics'), default='pred', help=items)
    parser.add_argument('--show', action='store_true', help='show the predictions on screen')
    parser.add_argument('--show-dir', metavar='DIR', help='write images with the predictions below this folder')
    parser.add_argument('--wait-time', type=float, default=2, metavar='SECONDS', help='for each image shown')
    parser.add_argument('--tta', action='store_true', help='average over augmented copies of each image')
    parser.add_argument('--deploy', action='store_true', help='test the deployed model: norms folded, ReLUs fused')
    command_line.add_launcher(parser)
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug):
        from icconv_mm.apis import test

        run, options = command_line.read_run(args)
        if not test(run, **options):
            print('no metric: the model predicted nothing')


if __name__ == '__main__':
    main()
