"""Train a network on images as they lie, or as a config says.

CONFIG is a folder or a file of annotations (icconv data says what is read), or the file of a config.

Examples:
  icconv train data/bccd --time 12m
  icconv train data/bccd --task detection --backbone ic_resnet18 --size 416 --epochs 50
  icconv train data/camvid --task semantic --ignore-index 11 --classes sky building pole road ...
  icconv train config.py --work-dir work_dirs/det --resume
"""

import gc
from argparse import ArgumentParser, Namespace

from icconv_mm.app.commands import command_line
from icconv_mm.errors import message_of


def add_arguments(parser: ArgumentParser, is_tool: bool = False) -> None:
    """Adds the arguments."""
    parser.add_argument('config', nargs='+', metavar='CONFIG', help='config file, or folders or annotation files')
    command_line.add_cfg_options(parser)
    command_line.add_work_dir(parser)
    command_line.add_data(parser)
    command_line.add_labels(parser)
    parser.add_argument('--epochs', type=int, metavar='N', help='length, with all schedules in proportion')
    parser.add_argument('--iters', type=int, metavar='N', help='the same for a config that counts iterations')
    budget = 'length by time, validations and report included, such as 12m or 1h30m; with --resume, what is left of it'
    parser.add_argument('--time', metavar='DURATION', help=budget)
    going = 'go on where a loss is not finite, which otherwise ends the run'
    parser.add_argument('--keep-going', action='store_true', help=going)
    latest = 'continue from this checkpoint; without one, from the latest in the work folder'
    parser.add_argument('--resume', nargs='?', default=False, const='auto', metavar='CHECKPOINT', help=latest)
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16, on a CPU bfloat16')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate by the batch size')
    parser.add_argument('--no-validate', dest='validate', action='store_false', help='train without validation')
    parser.add_argument('--skip-bad-images', action='store_true', help='warn about unreadable images, leave them out')
    differing = 'modules whose weights in load_from may differ from the model, such as roi_head.bbox_head'
    parser.add_argument('--allow-mismatch', nargs='+', default=[], metavar='MODULE', help=differing)
    command_line.add_launcher(parser)


def run(args: Namespace) -> None:
    """Trains."""
    with command_line.reporting(args.debug):
        from icconv_mm.app.training.train import train
        from icconv_mm.datasets.loading import ImageFileError

        given_time = args.time
        run, options = command_line.read_training(args)
        gc.freeze()  # mmengine collects at every dataset, half a second for all that has been imported
        try:
            train(run, **options)
        except KeyboardInterrupt:
            command_line.say_how_to_go_on(run, given_time)
            raise
        except ImageFileError as error:
            hint = '--skip-bad-images trains without such images'
            if args.skip_bad_images:
                hint = 'what validates is not skipped: remove it (icconv data FOLDER names all damaged images)'
            raise ImageFileError(f'{message_of(error)}; {hint}') from error
