"""Print the datasets of a folder with warnings by file, and draw a page of annotated images.

Examples:
  python tools/prepare_data.py data/bccd
  python tools/prepare_data.py data/camvid --ignore-index 11 --out-dir work_dirs/camvid_data
"""

from collections.abc import Sequence
from pathlib import Path

from icconv_mm.runner import command_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('data', nargs='+', help='folders, or files of labels: data.yaml, a COCO file')
    command_line.add_labels(parser)
    parser.add_argument('--out-dir', metavar='DIR', help='for files and page (default: work_dirs/NAME_data)')
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug):
        from icconv_mm.annotations.convert import convert_dataset, name_of, read_datasets
        from icconv_mm.annotations.report import draw_page, summary, write_warnings

        out = Path(args.out_dir or Path('work_dirs', f'{name_of(args.data[0])}_data'))
        options = dict(strict=args.strict, crowd_as_objects=args.crowd_as_objects, voc_from=args.voc_from)
        for number, found in enumerate(sets := read_datasets(*args.data, **options)):
            folder = out / str(number) if number else out
            options = dict(classes=args.classes, ignore_index=args.ignore_index, thorough=True)
            made = [convert_dataset(found, task, folder, **options) for task in found.tasks()]
            print('\n'.join(summary(found, made)))
            print(f'  written to {folder}; images: {draw_page(found, made, folder / "page.jpg")}')
        write_warnings(out / 'warnings.json', sets)


if __name__ == '__main__':
    main()
