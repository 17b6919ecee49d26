"""Train a detector, segmentor, pose estimator or classifier, as its config says.

CONFIG is the file of a config; or images as they lie, a folder or a file of labels, for which one is written first
(tools/prepare_data.py says what is read): the first line is all that BCCD needs.

Examples:
  python tools/train.py data/bccd --task detection --backbone ic_resnet18 --size 416 --epochs 50
  python tools/train.py data/camvid --task semantic --ignore-index 11 --classes sky building pole road ...
  python tools/train.py configs/detection/faster-rcnn_ic-r18_fpn_miniature.py --work-dir work_dirs/det
  python tools/train.py configs/detection/faster-rcnn_ic-r18_fpn_miniature.py --work-dir work_dirs/det --resume
"""

from collections.abc import Sequence

from icconv_mm.app.commands import run_tool, train


def main(argv: Sequence[str] | None = None) -> None:
    run_tool(train, __doc__, argv)


if __name__ == '__main__':
    main()
