"""The command ``python -m icconv_mm.install_openmmlab``."""

import argparse
import sys
from collections.abc import Sequence

from . import __doc__ as description
from .own_environment import OwnEnvironment, device_here, installed_here
from .processes import SetupError, say


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m icconv_mm.install_openmmlab', description=description, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument('--yes', action='store_true', help='do it; without this only the plan is printed')
    parser.add_argument(
        '--torch', metavar='VERSION', help='2.1, 2.11 or 2.15: with this torch; default: the installed one'
    )
    parser.add_argument('--device', choices=['cpu', 'cuda'], help='default: cuda where torch sees a GPU')
    args = parser.parse_args(argv)
    try:
        route = OwnEnvironment(args.torch, args.device or device_here(), installed_here())
        print('\n'.join(route.plan()))
        if not args.yes:
            print('Nothing was changed; --yes does this.')
            return 0
        route.fill()
    except SetupError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; the next call does what is left', file=sys.stderr)
        return 130
    pose = ', mmpose' if route.those(['mmpose']) else ''  # no fork of it, and none for the newest torch
    say(f'done; `python -c "import icconv_mm.registry, mmdet, mmseg{pose}"` tries it')
    return 0


if __name__ == '__main__':
    sys.exit(main())
