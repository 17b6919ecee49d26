"""Print the datasets of a folder with warnings by file, and draw a page of annotated images; or convert a dataset.

Examples:
  icconv data data/bccd
  icconv data data/camvid --ignore-index 11 --out-dir work_dirs/camvid_data
  icconv data data/bccd --to yolo --out data/bccd_yolo
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icconv_mm.app.commands import command_line
from icconv_mm.datasets.kinds import TASKS
from icconv_mm.errors import ArgumentError


def add_arguments(parser: ArgumentParser, is_tool: bool = False) -> None:
    """Adds the arguments."""
    parser.add_argument('data', nargs='+', help='folders, or annotation files: data.yaml, a COCO file')
    command_line.add_labels(parser)
    parser.add_argument('--out-dir', metavar='DIR', help='for files and page (default: work_dirs/NAME_data)')
    formats = 'coco', 'yolo', 'labelstudio', 'cvat'
    parser.add_argument('--overwrite', action='store_true', help='replace files of the same names in --out-dir')
    parser.add_argument('--to', choices=formats, help='convert the dataset to this format instead')
    parser.add_argument('--task', choices=TASKS, help='the dataset to convert, where a folder holds several')
    parser.add_argument('--out', metavar='DIR', help='a new folder for the converted dataset')
    parser.add_argument('--copy', action='store_true', help='copy its images; by default they are linked')


def run(args: Namespace) -> None:
    """Prints and draws the datasets, or converts one."""
    with command_line.reporting(args.debug):
        from icconv_mm.app.annotations.convert import convert_dataset
        from icconv_mm.app.annotations.door import read_dataset
        from icconv_mm.app.annotations.find import name_of, read_datasets
        from icconv_mm.app.annotations.report import draw_page, summary, write_warnings
        from icconv_mm.files import owned_folder

        reading = dict(strict=args.strict, crowd_as_objects=args.crowd_as_objects, voc_from=args.voc_from)
        if args.to:
            if len(args.data) > 1 or not args.out:
                raise ArgumentError('to', 'converts one dataset into a new folder: --out FOLDER')
            if args.overwrite:
                raise ArgumentError('overwrite', 'is for --out-dir: a converted dataset gets a new folder')
            dataset = read_dataset(args.data[0], args.task, args.classes, args.ignore_index, **reading)
            folder = getattr(dataset, f'to_{args.to}')(args.out, copy=args.copy)
            print('\n'.join([dataset.summary(), f'  written to {folder}']))
            return
        for name in ('task', 'out', 'copy'):
            if getattr(args, name):
                raise ArgumentError(name, 'is for a conversion: --to FORMAT')
        out = Path(args.out_dir or Path('work_dirs', f'{name_of(args.data[0])}_data'))
        sets = read_datasets(*args.data, **reading)
        with owned_folder(out, args.overwrite) as unfinished:
            lines = []
            for number, dataset_of_set in enumerate(sets):
                folder = unfinished / str(number) if number else unfinished
                options = dict(classes=args.classes, ignore_index=args.ignore_index, thorough=True)
                results = [
                    convert_dataset(dataset_of_set, task, folder, **options)
                    for task in _tasks(dataset_of_set, args.classes)
                ]
                page = draw_page(dataset_of_set, results, folder / 'page.jpg').relative_to(unfinished)
                lines += [
                    *summary(dataset_of_set, results),
                    f'  written to {(out / page).parent}; images: {out / page}',
                ]
            write_warnings(unfinished / 'warnings.json', sets)
        print('\n'.join(lines))


def _tasks(dataset: Any, classes: Sequence[str] | None) -> list[str]:
    """Returns the tasks of a dataset, without classification if others are there and no image has one class of it."""
    tasks, names = dataset.tasks(), classes or dataset.labels()
    if len(tasks) > 1 and not any(image.label_among(names) for image in dataset):
        tasks = [task for task in tasks if task != 'classification']
    return tasks
