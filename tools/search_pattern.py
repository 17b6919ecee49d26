"""Search the dilation pattern of a trained supernet (EDO), or read the one that RF-Next found.

The supernet is ICResNet(..., supernet_d_max=D) or any network through icconv_mm.layers.to_supernet.

Examples:
  python tools/search_pattern.py supernet.pth --d-max 4 --out pattern.json --checkpoint-out ic_init.pth
  python tools/search_pattern.py local_search_config_step11.json --config config.py --out pattern.json   # RF-Next
"""

from collections.abc import Sequence

from icconv_mm.app.commands import run_tool, search


def main(argv: Sequence[str] | None = None) -> None:
    run_tool(search, __doc__, argv)


if __name__ == '__main__':
    main()
