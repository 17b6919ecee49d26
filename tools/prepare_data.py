"""Print the datasets of a folder with warnings by file, and draw a page of annotated images; or convert a dataset.

Examples:
  python tools/prepare_data.py data/bccd
  python tools/prepare_data.py data/camvid --ignore-index 11 --out-dir work_dirs/camvid_data
  python tools/prepare_data.py data/bccd --to yolo --out data/bccd_yolo
"""

from collections.abc import Sequence

from icconv_mm.app.commands import data, run_tool


def main(argv: Sequence[str] | None = None) -> None:
    run_tool(data, __doc__, argv)


if __name__ == '__main__':
    main()
