"""Names and colours of the values of segmentation maps: tables beside the maps, ADE20K's and Cityscapes' own."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from icconv_mm.app.annotations.dataset import Dataset
from icconv_mm.app.annotations.images_on_disk import Files

Table = dict[int, tuple[str, tuple[int, int, int] | None]]

_FILE = re.compile(  # does not match filenames.txt
    r'((.*[^a-z])?(classes|classification|class_names|labelmap|label_colors|class_dict|objectinfo150)|names|labels)'
    r'\.(txt|csv)'
)
_NUMBERED = re.compile(r'([0-9]{1,9})[\s:,;=]+(?=\S)')
_COLOR = re.compile(r'(^[0-9]{1,9}[\s,;]+)?([0-9]{1,3})[\s,;]+([0-9]{1,3})[\s,;]+([0-9]{1,3})')
_HEX = re.compile(r'#([0-9a-fA-F]{6})\b')
_BYTE = re.compile(r'\s*[0-9]{1,3}\s*')
_OF_COLORS = '# label:color_rgb'  # the first line of datumaro's and CVAT's labelmap.txt
_NO_VALUE = '__ignore__'  # LabelMe's first line of labels.txt: its pixels are 255
_OTHER = 'ignored'  # name of ADE20K's value 0, "other objects": mmseg's reduce_zero_label
# The classes that Cityscapes evaluates, with the values in labelIds; their order gives those in labelTrainIds.
_CITYSCAPES = dict(
    zip(
        (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
        (
            *('road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign', 'vegetation'),
            *('terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle'),
        ),
    )
)


def tables_in(files: Files) -> dict[Path, Table]:
    """Returns the tables of names below a folder: name and colour of each value, by file."""
    tables = {}
    for path in files.ending('.txt', '.csv'):
        if _FILE.fullmatch(path.name.lower()):
            lines = files.text(path).splitlines()
            is_rows = path.suffix.lower() == '.csv' or path.stem.lower() == 'objectinfo150'
            if table := _table_of_rows(lines) if is_rows else _table_of_lines(lines):
                is_colored = path.name.lower() == 'label_colors.txt' or lines[0].startswith(_OF_COLORS)
                tables[path] = _with_colors(table, path, files) if is_colored and not has_colors(table) else table
    return tables


def _with_colors(table: Table, path: Path, files: Files) -> Table:
    """Returns a table of colours that datumaro wrote without colours, with those that it paints: Pascal VOC's."""
    names = [name for name, _ in table.values()]
    names = names if 'background' in names else ['background', *names]
    what = 'has names without colours: those of Pascal VOC are taken, in the order of the names'
    files.warnings.warn_once(path, what)
    return {value: (name, _voc_color(value)) for value, name in enumerate(names)}


def _voc_color(value: int) -> tuple[int, int, int]:
    """Returns the colour of a value in Pascal VOC's palette: every third bit belongs to one of red, green and blue."""
    red, green, blue = (sum((value >> 3 * i + k & 1) << 7 - i for i in range(8)) for k in range(3))
    return red, green, blue


def table_of(folder: Path, tables: dict[Path, Table]) -> Path | None:
    """Returns the table of the maps in a folder: the nearest above them, else one that is alone or like all others."""
    above = [path for path in tables if folder.is_relative_to(path.parent)]
    if above:
        return max(above, key=lambda path: len(path.parent.parts))
    first = next(iter(tables), None)
    return first if all(table == tables[first] for table in tables.values()) else None


def has_colors(table: Table) -> bool:
    """Returns whether a table gives colours."""
    return any(color is not None for _, color in table.values())


def take_names(dataset: Dataset, table: Table, names: Iterable[str]) -> None:
    """Sets the dataset's names, colours and ignored values from a table, or from Cityscapes' by the names of maps."""
    for value, (name, color) in table.items():
        if name.strip():
            dataset.seg_map_classes[value] = name
        else:
            what = f'value {value} of segmentation maps has a blank name in their table'
            dataset.warn(dataset.location, what, is_left_out=True)
        if color is not None:
            dataset.colors[color] = value
    if not table and all(re.search('_gt(Fine|Coarse)_label(Train)?Ids', name) for name in names):
        are_ids = any('labelIds' in name for name in names)
        dataset.seg_map_classes = _CITYSCAPES if are_ids else dict(enumerate(_CITYSCAPES.values()))
        dataset.ignore_index |= set(range(34)) - _CITYSCAPES.keys() if are_ids else set()


def _table_of_rows(lines: list[str]) -> Table:
    """Parses rows of a name and a colour, separated by commas, semicolons or tabs; or ADE20K's list of objects."""
    separator = max(',;\t', key=lambda mark: sum(mark in line for line in lines))
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator) if row]
    if rows and rows[0][0] == 'Idx' and rows[0][-1] == 'Name':
        names = {int(row[0]): row[-1].split(',')[0] for row in rows[1:] if row[0].isdigit()}
        return {0: (_OTHER, None)} | {value: (name, None) for value, name in names.items()}
    colored = []
    for row in rows:
        given = next((match for cell in row[1:] if (match := _HEX.fullmatch(cell))), None)
        if given:
            colored.append((row[0], tuple(bytes.fromhex(given[1]))))
        elif len(row) >= 4 and all(map(_BYTE.fullmatch, row[1:4])):
            colored.append((row[0], tuple(map(int, row[1:4]))))
    return dict(enumerate(colored))


def _table_of_lines(lines: list[str]) -> Table:
    """Parses lines of a name and an optional colour; values are leading numbers if all have one, else the order."""
    texts, colors = [], []
    decimal = (_HEX.sub(lambda match: ' '.join(map(str, bytes.fromhex(match[1]))), line) for line in lines)
    for line in filter(None, (line.split('#')[0].strip() for line in decimal)):
        if line != _NO_VALUE:
            color = _COLOR.search(line)
            rest = (color[1] or '') + line[: color.start()] + line[color.end() :] if color else line
            texts.append(rest.strip(' \t:,;'))
            colors.append(tuple(map(int, color.groups()[1:])) if color else None)
    numbers = [_NUMBERED.match(text) for text in texts]
    values = [int(number[1]) for number in numbers if number]
    if len(set(values)) == len(texts):
        texts = [text[number.end() :] for text, number in zip(texts, numbers)]
    else:
        values = range(len(texts))
    return {value: (text, color) for value, text, color in zip(values, texts, colors)}
