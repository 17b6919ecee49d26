"""Fetch the dilation patterns that the authors of IC-Conv published, and check them.

They go to <cache>/patterns, where `pattern='detection/ic_resnet50_k9'` finds them; the cache folder is
$ICCONV_MM_CACHE, $XDG_CACHE_HOME/icconv_mm or ~/.cache/icconv_mm. One that cannot be had is named at the end (exit
status 1) and keeps no other back.

Examples:
  python tools/download_patterns.py
  python tools/download_patterns.py detection/ic_resnet50_k9 --from FOLDER
"""

from collections.abc import Sequence
from functools import partial

from icconv_mm.app.commands import command_line
from icconv_mm.patterns import PUBLISHED, cache_folder
from icconv_mm.patterns.download import PUBLISHED_AT, download_patterns


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'which ones (default: all): {", ".join(PUBLISHED)}')
    where = 'a folder, such as a clone of the repository, or an address (default: %(default)s)'
    parser.add_argument('--from', dest='source', default=PUBLISHED_AT, metavar='ADDRESS', help=where)
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug, interrupted='what is already in the cache is complete'):
        fetched = download_patterns(
            args.names or None, args.source, partial(command_line.progress, description='patterns')
        )
    new = sum(fetched.values())
    counts = f'{new} fetched, {len(fetched) - new} already there, all SHA-256 as published'
    print(f'{cache_folder() / "patterns"}: {counts}')


if __name__ == '__main__':
    main()
