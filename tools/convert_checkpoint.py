"""Convert a released checkpoint to the keys of this package and of the task libraries' current versions.

Examples:
  python tools/convert_checkpoint.py ckpt/detection/r50_imagenet_retrain/ckpt.pth.tar \\
      checkpoints/ic_resnet50_k9_imagenet.pth --source ic-conv --pattern detection/ic_resnet50_k9
"""

from collections.abc import Sequence

from rich.console import Console

from icconv_mm.checkpoints import SOURCES, UnmatchedKeysError, convert_file, load_rules
from icconv_mm.checkpoints.report import left_table, moves_table
from icconv_mm.errors import InputError
from icconv_mm.utils import command_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('input', help='the released file')
    parser.add_argument('output', help='the file to write')
    parser.add_argument('--source', default='ic-conv', choices=list(SOURCES), help='who released it (default: ic-conv)')
    parser.add_argument(
        '--rename-rules', metavar='FILE', help='JSON or YAML list of {pattern: REGEX, replace: KEY or null}'
    )
    parser.add_argument('--allow-unmatched', action='store_true', help='leave out keys that have no place')
    parser.add_argument('--backbone-prefix', help="of ic-conv, of several backbones: what stands before 'layer1'")
    parser.add_argument('--pattern', help='of ic-conv: check the file against this dilation pattern, run by run')
    args = parser.parse_args(argv)
    console = Console()
    options = {name: value for name in ('backbone_prefix', 'pattern') if (value := getattr(args, name)) is not None}
    with command_line.reporting(args.debug, after='Nothing was written.'):
        rules = load_rules(args.rename_rules) if args.rename_rules else ()
        try:
            with Console(stderr=True).status(f'Converting {args.input}'):
                conversion = convert_file(
                    args.input, args.output, args.source, rules=rules, allow_unmatched=args.allow_unmatched, **options
                )
        except UnmatchedKeysError as error:
            console.print(moves_table(error.conversion), left_table(error.conversion))
            raise InputError(f'{error} (--rename-rules, --allow-unmatched)') from None
    console.print(moves_table(conversion))
    if conversion.left:
        console.print(left_table(conversion))
    console.print(f'{len(conversion.state_dict)} tensors written to {args.output}', markup=False)


if __name__ == '__main__':
    main()
