"""Swap the backbone of every config that the installed libraries ship for ours, run both, and write what works."""

from pathlib import Path

from icconv_mm.apis import cli
from icconv_mm.errors import reporting

PAGE = Path(__file__).parents[1] / 'docs/compatibility.md'
MARK = '<!-- made by tools/check_compatibility.py from here on -->\n'


def main(argv=None) -> None:
    parser = cli.parser(__doc__)
    parser.add_argument('--libraries', nargs='+', metavar='NAME', help='mmdet, mmseg, mmpose, mmpretrain; default: all')
    parser.add_argument('--page', type=Path, default=PAGE, metavar='FILE', help='where the tables go (%(default)s)')
    args = parser.parse_args(argv)
    with reporting(args.debug):
        from tqdm import tqdm

        from icconv_mm import versions
        from icconv_mm.apis import compatibility

        libraries = args.libraries or [name for name in compatibility.LIBRARIES if versions.is_installed(name)]
        outcomes = []
        for library in libraries:
            outcomes += compatibility.check_library(library, lambda cases, name=library: tqdm(cases, desc=name))
        found = ', '.join(' '.join(versions.installed(name)) for name in ('torch', 'mmcv', *libraries))
        text = f'With {found}.\n\n{compatibility.table(outcomes)}\n'
        before = args.page.read_text().partition(MARK)[0] if args.page.exists() else ''
        args.page.write_text(before + MARK + '\n' + text)
        print(text)


if __name__ == '__main__':
    main()
