"""Predict for images, videos and cameras: what is drawn, and a COCO results file, for any task.

Examples:
  python tools/infer.py CONFIG CHECKPOINT data/miniature/val --out-dir work_dirs/predicted
  python tools/infer.py CONFIG CHECKPOINT street.mp4 --out-dir work_dirs/street
"""

from collections.abc import Sequence

from icconv_mm.app.commands import predict, run_tool


def main(argv: Sequence[str] | None = None) -> None:
    run_tool(predict, __doc__, argv)


if __name__ == '__main__':
    main()
