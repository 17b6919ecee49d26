"""Write a trained network as one file that runs without this package and, but for pt2 and program, without torch.

The results of the file are compared with those of the model before it is written; the report says how far they are from
each other. What runs the file: python -m icconv_mm_runtime, see docs/export.md.

Examples:
  python tools/export.py CONFIG CHECKPOINT --to onnx --out network.onnx
  python tools/export.py CONFIG CHECKPOINT --to openvino --images images/
  python tools/export.py CONFIG CHECKPOINT --to onnx --int8 images/ --out network_int8.onnx
"""

from collections.abc import Sequence

from icconv_mm.app.commands import export, run_tool


def main(argv: Sequence[str] | None = None) -> None:
    run_tool(export, __doc__, argv)


if __name__ == '__main__':
    main()
