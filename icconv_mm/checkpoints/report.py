"""Tables of what a conversion did, for people to read."""

from rich.table import Table

from icconv_mm.checkpoints.conversion import Conversion, group_keys, mask_numbers
from icconv_mm.utils.tables import table


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
    return table(f'layout: {conversion.layout}', rows, {'from', 'to', 'what'})


def _module(key: str) -> str:
    return mask_numbers(key.rpartition('.')[0])


def left_table(conversion: Conversion) -> Table:
    """One row per kind of key that has no place: name with its indices masked, how many, and one shape."""
    shapes = {mask_numbers(key): list(value.shape) for key, value in reversed(conversion.left.items())}
    rows = [(name, str(count), str(shapes[name])) for name, count in group_keys(conversion.left)]
    titles = ('key', 'keys', 'first shape')
    return table(f'{len(conversion.left)} keys left out', [titles, *rows], {'key', 'first shape'})
