"""Test a checkpoint of any task with the metrics of its config.

Examples:
  python tools/test.py CONFIG CHECKPOINT
  python tools/test.py CONFIG CHECKPOINT --show-dir work_dirs/shown --cfg-options test_dataloader.batch_size=4
"""

from collections.abc import Sequence

from icconv_mm.app.commands import run_tool, test


def main(argv: Sequence[str] | None = None) -> None:
    run_tool(test, __doc__, argv)


if __name__ == '__main__':
    main()
