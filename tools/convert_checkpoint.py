"""Convert a released checkpoint to the keys of this package and of the task libraries' current versions.

Examples:
  python tools/convert_checkpoint.py ckpt/detection/r50_imagenet_retrain/ckpt.pth.tar \\
      checkpoints/ic_resnet50_k9_imagenet.pth --source ic-conv --pattern detection/ic_resnet50_k9
  python tools/convert_checkpoint.py epoch_12.pth aligned.pth --source icconv-mm --config config.py --align 32
"""

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from icconv_mm.app.commands import command_line, tables
from icconv_mm.checkpoints import SOURCES, Conversion, UnmatchedKeysError, convert_file, load_rules
from icconv_mm.checkpoints.alignment import AlignedLayer, patterns_in
from icconv_mm.checkpoints.convert import OWN, group_keys, mask_numbers
from icconv_mm.errors import InputError

IMAGES = 32  # on which changes are measured


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('input', help='the released file')
    parser.add_argument('output', help='the file to write')
    parser.add_argument('--source', default='ic-conv', choices=list(SOURCES), help='who released it (default: ic-conv)')
    parser.add_argument(
        '--rename-rules', metavar='FILE', help='JSON or YAML list of {pattern: REGEX, replace: KEY or null}'
    )
    parser.add_argument('--allow-unmatched', action='store_true', help='leave out keys that have no counterpart')
    parser.add_argument('--backbone-prefix', help="of ic-conv, of several backbones: what stands before 'layer1'")
    parser.add_argument('--pattern', help='of ic-conv: check the file against this dilation pattern, run by run')
    parser.add_argument(
        '--align',
        type=int,
        metavar='N',
        help='move filters to near dilations until each has multiples of N channels, such as 32; needs --pattern, or '
        'a --config with one, and writes the new pattern beside the output',
    )
    parser.add_argument('--weights', metavar='NAME', help='of a file with several networks: its entry, such as ema')
    parser.add_argument('--config', help='write only what fits the model of this config')
    parser.add_argument(
        '--images',
        metavar='FOLDER',
        help=f'of --align with --config: print by how much the maps of the backbone change on {IMAGES} of its images',
    )
    args = parser.parse_args(argv)
    if args.images and not (args.align and args.config):
        parser.error('--images needs --align and --config')
    if args.source == OWN and args.align is None:
        parser.error(f'--source {OWN}: such a file loads as it is; it is for --align')
    if args.align is not None and not (args.pattern or args.config):
        parser.error('--align needs --pattern, or a --config with a pattern')
    console = tables.console()
    given = ('backbone_prefix', 'pattern', 'weights')
    options = {name: value for name in given if (value := getattr(args, name)) is not None}
    images = []
    with command_line.reporting(args.debug, after='Nothing was written.'):
        rules = load_rules(args.rename_rules) if args.rename_rules else ()
        if args.config:
            options = _options_of(args.config, args.source) | options
        if args.images:
            from icconv_mm.apis import load_config, read_images

            images = list(itertools.islice(read_images(args.images, load_config(args.config)), IMAGES))
        try:
            with tables.console(stderr=True).status(tables.plain(f'Converting {args.input}')):
                conversion = convert_file(
                    args.input,
                    args.output,
                    args.source,
                    rules=rules,
                    allow_unmatched=args.allow_unmatched,
                    align=args.align,
                    **options,
                )
        except UnmatchedKeysError as error:
            console.print(moves_table(error.conversion), left_table(error.conversion))
            raise InputError(f'{error} (--rename-rules, --allow-unmatched)') from None
    console.print(moves_table(conversion))
    if conversion.left:
        console.print(left_table(conversion))
    if conversion.aligned:
        console.print(aligned_table(conversion.aligned, args.align))
        console.print(f'pattern: {Path(args.output).with_suffix(".json")}')
    console.print(f'{len(conversion.state_dict)} tensors written to {args.output}')
    if images:
        with command_line.reporting(args.debug):
            for number, change in enumerate(map_changes(options['model'], conversion, images)):
                what = f'by {change:.1%} of its norm on {len(images)} images'
                console.print(f'map {number} of the backbone changes {what}', soft_wrap=True)


def _options_of(config: str, source: str) -> dict[str, Any]:
    """The model of a config and, of IC-Conv and own files, the pattern: what the converted file must fit."""
    from icconv_mm.app.runs.begin import load_run

    run = load_run(config)
    model = run.build_model()
    if source == 'ic-conv':
        pattern = run.cfg.model.get('backbone', {}).get('pattern')
    else:
        pattern = list(patterns_in(model).values()) if source == OWN else None
    return {'model': model} | ({'pattern': pattern} if pattern else {})


def moves_table(conversion: Conversion) -> Table:
    """One row per kind of module: its name with indices masked, how many keys became how many, and what was done."""
    counted: dict[tuple[str, str, str], list[int]] = {}
    for move in conversion.moves:
        new = '-' if move.new is None else _module(move.new)
        counts = counted.setdefault((_module(move.old[0]), new, move.how), [0, 0])
        counts[0] += len(move.old)
        counts[1] += move.new is not None
    rows = [('from', 'to', 'keys', 'what')]
    for (old, new, how), (before, after) in counted.items():
        rows.append((old, new, str(after) if before == after else f'{before} -> {after}', how))
    return tables.table(f'layout: {conversion.layout}', rows, {'from', 'to', 'what'})


def _module(key: str) -> str:
    return mask_numbers(key.rpartition('.')[0])


def left_table(conversion: Conversion) -> Table:
    """One row per kind of key that has no counterpart: name with its indices masked, how many, and one shape."""
    shapes = {mask_numbers(key): list(value.shape) for key, value in reversed(conversion.left.items())}
    rows = [(name, str(count), str(shapes[name])) for name, count in group_keys(conversion.left)]
    titles = ('key', 'keys', 'first shape')
    return tables.table(f'{len(conversion.left)} keys left out', [titles, *rows], {'key', 'first shape'})


@torch.no_grad()
def map_changes(model: nn.Module, conversion: Conversion, images: Sequence[Tensor]) -> list[float]:
    """By how much each map of a model's backbone changes through the alignment, of its norm over all images."""
    aligned = copy.deepcopy(model)
    for layer in conversion.aligned:
        conv = aligned.get_submodule(layer.name)
        conv.pattern, conv.scaled_pattern = layer.pattern, layer.pattern.scaled(conv.dilation)
    networks = []
    for network, state in ((model, conversion.unaligned), (aligned, conversion.state_dict)):
        network.load_state_dict(state, strict=False)
        networks.append(network.eval().backbone)
    sums = 0
    for image in images:
        pairs = zip(*(network(image) for network in networks))
        sums = sums + torch.tensor([[(new - old).square().sum(), old.square().sum()] for old, new in pairs]).double()
    return (sums[:, 0] / sums[:, 1]).sqrt().tolist()


def aligned_table(layers: Sequence[AlignedLayer], block: int) -> Table:
    """One row per inception convolution: its channels, how many have another dilation now, and its runs."""
    rows = [('layer', 'channels', 'moved', 'of the norm', 'runs')]
    for layer in layers:
        counts = layer.pattern.out_channels, layer.moved, f'{layer.share:.0%}', len(layer.pattern)
        rows.append((layer.name, *map(str, counts)))
    total, moved = (sum(column) for column in zip(*((layer.pattern.out_channels, layer.moved) for layer in layers)))
    title = f'blocks of {block}: {moved} of {total} channels have another dilation'
    return tables.table(title, rows, {'layer'})


if __name__ == '__main__':
    main()
