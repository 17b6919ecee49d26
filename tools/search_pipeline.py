"""Train a supernet, search its dilations, retrain, and compare the patterns at equal budget.

It goes on where it was interrupted. Without a config it works on the miniature dataset.

Examples:
  python tools/search_pipeline.py --work-dir work_dirs/search
"""

from collections.abc import Sequence
from pathlib import Path

from icconv_mm.app.commands import command_line
from icconv_mm.app.commands.tables import console
from icconv_mm.patterns.search import CRITERIA

CONFIG = Path(__file__).resolve().parents[1] / 'configs/semantic_segmentation/fpn_ic-r18-supernet_miniature.py'


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('--config', default=str(CONFIG), help='config of a supernet, schedule in iterations')
    parser.add_argument('--work-dir', metavar='DIR', default='work_dirs/search', help='default: %(default)s')
    parser.add_argument('--seeds', type=int, nargs='+', metavar='N', default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--iters', type=int, metavar='N', help="length of every training (default: the config's)")
    variants = 'some of: dense analytic searched (default: these three) inherited'
    parser.add_argument(
        '--variants', nargs='+', metavar='NAME', default=['dense', 'analytic', 'searched'], help=variants
    )
    parser.add_argument('--criterion', choices=CRITERIA, default=CRITERIA[0], help='default: %(default)s')
    parser.add_argument('--align', type=int, metavar='N', help='multiples of N channels for each dilation, such as 32')
    parser.add_argument('--metric', metavar='NAME', help='default: the usual one, such as mIoU or coco/bbox_mAP')
    parser.add_argument(
        '--count', type=int, metavar='N', help='stop after that many trainings; the same command goes on'
    )
    command_line.add_cfg_options(parser)
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug, interrupted='the same command goes on'):
        from icconv_mm.apis import load_config
        from icconv_tools.miniature import ensure_miniature
        from icconv_tools.search_pipeline import SearchPipeline

        config = load_config(args.config, args.cfg_options, args.work_dir)
        if Path(args.config).resolve() == CONFIG:
            ensure_miniature(config.data_root)
        options = {name: getattr(args, name) for name in ('seeds', 'iters', 'variants', 'criterion', 'align', 'metric')}
        pipeline = SearchPipeline(config, args.work_dir, **options, show=console().print)
        report = pipeline.run(args.count)
    if report is None:
        print('trainings are left: the same command goes on')
    else:
        print(f'report: {pipeline.work_dir}/report.md')


if __name__ == '__main__':
    main()
