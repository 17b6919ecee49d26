"""Writes the table of the tools that were tried into ``docs/data.md``: ``python tools/dev/exporters/table.py``."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / 'docs/data.md'
START, END = '<!-- tools that were tried -->\n', '<!-- end of the tools -->\n'
_KINDS = {'Pascal': 'VOC', 'a': 'SLEAP', "labelme's": 'labelme'}  # of the first words of the formats
_HEAD = '| tool | wrote | arrives | what the tool changes | what is decided |\n|---|---|---|---|---|\n'


def table(folder: Path = ROOT / 'tests/data/exporters') -> str:
    """Returns a row for each tool, from the ``truth.json`` of its sets."""
    truths = defaultdict(list)
    for path in sorted(folder.glob('*/*/truth.json')):
        truths[path.parts[-3]].append(json.loads(path.read_text()))
    return _HEAD + ''.join(f'| {_name(tool)} | {" | ".join(_cells(truth))} |\n' for tool, truth in truths.items())


def _name(folder: str) -> str:
    return ' '.join(folder.rsplit('-', 1))


def _cells(truths: list[dict]) -> Iterable[str]:
    writes = defaultdict(int)
    for truth in truths:
        writes[truth['writes']] += 1
    yield ', '.join(f'{name} ({count})' if count > 1 else name for name, count in sorted(writes.items()))
    images = [image for truth in truths for image in truth['images'].values()]
    objects = [item for image in images for item in image.get('objects', ())]
    kinds = {
        'boxes': any('box' in item for item in objects),
        'masks': any('mask' in item for item in objects),
        'keypoints': any('keypoints' in item for item in objects),
        'crowds': any(item.get('crowd') for item in objects),
        'segmentation maps': any('seg_map' in image for image in images),
        'splits': any('split' in image for image in images),
    }
    yield ', '.join(kind for kind, is_there in kinds.items() if is_there)
    for field in ('changes', 'decided'):
        lines = defaultdict(dict)
        for truth in truths:
            for line in [*truth[field], *([truth['refused']] if field == 'decided' and truth['refused'] else [])]:
                lines[line][_KINDS.get(truth['writes'].split()[0], truth['writes'].split()[0])] = None
        yield '; '.join(f'{line} ({", ".join(kinds)})' for line, kinds in lines.items())


def page_with_table(text: str) -> str:
    """Returns the text of the page with the table between its marks."""
    before, rest = text.split(START)
    return before + START + table() + END + rest.split(END)[1]


if __name__ == '__main__':
    PAGE.write_text(page_with_table(PAGE.read_text()))
