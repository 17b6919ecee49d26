"""Writes the tables of recipes from ``configs/*/metafile.yml``; ``--check`` only compares.

In ``configs/*/README.md``, which has a metafile beside it, a table stands below the line
``<!-- table: NAME OF A COLLECTION -->`` and has one row for each of its models. Columns are what the models' metadata
tell and the metrics of their results, with the origin of the figures: what all models of a collection share is told by
the collection alone.

In ``configs/README.md``, a table stands below ``<!-- recipes: by task -->`` or
``<!-- recipes: by architecture -->`` and has one row for each. It says what recipes there are, by what the names of
the models of all metafiles say.
"""

import argparse
import re
import sys
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]
CONFIGS = REPO / 'configs'
PLACE = re.compile(r'(<!-- table: (.+?) -->\n)((?:\|.*\n)*)')
COUNT = re.compile(r'(<!-- recipes: by (task|architecture) -->\n)((?:\|.*\n)*)')

TASKS = {
    'detection': 'object detection',
    'instance_segmentation': 'instance segmentation',
    'semantic_segmentation': 'semantic segmentation',
    'pose': 'bottom-up pose',
    'multitask': 'one network for several tasks',
    'classification': 'ImageNet pretraining',
}
# Words of a recipe's name, as configs/README.md explains them.
ARCHITECTURES = {
    'faster-rcnn': 'Faster R-CNN',
    'cascade-rcnn': 'Cascade R-CNN',
    'retinanet': 'RetinaNet',
    'freeanchor': 'FreeAnchor',
    'fsaf': 'FSAF',
    'atss': 'ATSS',
    'rtmdet': 'RTMDet',
    'dino-4scale': 'DINO',
    'mask-rcnn': 'Mask R-CNN',
    'cascade-mask-rcnn': 'Cascade Mask R-CNN',
    'mask2former': 'Mask2Former',
    'pspnet': 'PSPNet',
    'pyconvsegnet': 'PyConvSegNet',
    'ufp-fpt': 'UFP with FPT',
    'upernet': 'UPerNet',
    'segformer-head': "SegFormer's head",
    'ae': 'associative embedding',
    'rtmo': 'RTMO',
    'dekr': 'DEKR',
    'multitask': 'boxes + masks + semantic segmentation + pose',
    'multitask-boxes-poses': 'boxes + pose',
}
BACKBONES = {
    'ic-r': 'IC-ResNet',
    'ic-x': 'IC-ResNeXt',
    'pyconv-r': 'PyConvResNet',
    'pyconv-hgr': 'PyConvHGResNet',
    'r': 'ResNet',
    'x': 'ResNeXt',
}
DEPTHS = ('18', '34', '50', '101', '152')
NECKS = {'-sepc': 'SEPC', 'fpn-pconv': 'PConv', 'fpt': 'FPT'}
DATA = {
    'coco': 'COCO',
    'ade20k': 'ADE20K',
    'cityscapes': 'Cityscapes',
    'lip': 'LIP',
    'crowdpose': 'CrowdPose',
    'in1k': 'ImageNet-1k',
}


def table(metafile: dict, collection: str) -> str:
    """The rows of a collection as a table in Markdown.

    Args:
        metafile: What a ``metafile.yml`` holds.
        collection: The name of one of its collections.

    Raises:
        KeyError: There is no such collection, or figures have no origin (``Figures: published`` or ``measured``).
    """
    shared = {entry['Name']: entry['Metadata'] for entry in metafile['Collections']}[collection]
    rows, metrics = [], []
    for model in metafile['Models']:
        if model['In Collection'] != collection:
            continue
        path = Path(model['Config'])
        row = {'Config': f'[{path.stem}]({path.name})'} | model.get('Metadata', {})
        origin = row.pop('Figures', shared.get('Figures'))
        figures = {
            f'{name} ({origin})': value
            for result in model.get('Results', [])
            for name, value in result['Metrics'].items()
        }
        if figures and origin not in ('published', 'measured'):
            raise KeyError(f'{model["Name"]}: figures without `Figures: published` or `Figures: measured`')
        rows.append(row | figures)
        metrics += figures
    columns = [name for row in rows for name in row if name not in metrics]
    columns = list(dict.fromkeys(columns + metrics))
    cells = [[str(row.get(name, shared.get(name, '-'))) for name in columns] for row in rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in [columns, ['---'] * len(columns), *cells])


def with_tables(text: str, metafile: dict) -> str:
    """The text of a README with its tables as the metafile has them."""
    return PLACE.sub(lambda row: row.group(1) + table(metafile, row.group(2)), text)


def features(folder: str, name: str) -> dict[str, list[str]]:
    """What the name of a recipe says: by column, what it adds to the cell; a backbone adds its depth.

    Raises:
        KeyError: A word of the name has no meaning here.
    """
    words = name.split('_')
    if folder == 'classification':
        words = ['', words[0].replace('resnext', 'x').replace('resnet', 'r'), *words[1:]]
    stem, depth = re.match(r'([a-z-]+)(\d+)', words[1]).groups()
    return {
        'architecture': [ARCHITECTURES[words[0]]] if words[0] else [],
        'data': [DATA[key] for key in DATA if re.search(rf'(^|[_-]){key}(?=[_-]|$)', '_'.join(words[2:]))],
        'neck': [NECKS[key] for key in NECKS if key in '_'.join([words[0], *words[2:3]])],
        BACKBONES[stem]: [depth],
    }


def count(metafiles: dict[str, dict], by: str) -> str:
    """The recipes of all metafiles as a table in Markdown.

    Args:
        metafiles: What they hold, by folder.
        by: What a row is: a ``'task'``, or an ``'architecture'`` of one.
    """
    rows: dict[tuple[str, ...], dict[str, set[str]]] = {}
    for folder in TASKS:
        for model in metafiles[folder]['Models']:
            told = features(folder, model['Name'])
            row = rows.setdefault((folder, *(told['architecture'] if by == 'architecture' else [])), {})
            for column, values in told.items():
                row.setdefault(column, set()).update(values)
    columns = ['architecture', *BACKBONES.values(), 'neck', 'data']
    order = [*ARCHITECTURES.values(), *DEPTHS, *NECKS.values(), *DATA.values()]
    cells = [
        [
            f'[{TASKS[folder]}]({folder})',
            *(', '.join(sorted(row.get(name, ()), key=order.index)) or '-' for name in columns),
        ]
        for (folder, *_), row in rows.items()
    ]
    head = ['task', *columns]
    return ''.join(f'| {" | ".join(line)} |\n' for line in [head, ['---'] * len(head), *cells])


def with_counts(text: str, metafiles: dict[str, dict]) -> str:
    """The text of a page with its counts as the metafiles have them."""
    return COUNT.sub(lambda row: row.group(1) + count(metafiles, row.group(2)), text)


def main() -> None:
    parser = argparse.ArgumentParser(description='Write the tables of recipes from the metafiles.')
    parser.add_argument('--check', action='store_true', help='write nothing; exit with status 1 if a table is stale')
    check = parser.parse_args().check
    metafiles = {path.parent.name: yaml.safe_load(path.read_text()) for path in sorted(CONFIGS.glob('*/metafile.yml'))}
    tables = {}
    for folder, metafile in metafiles.items():
        page = CONFIGS / folder / 'README.md'
        tables[page] = with_tables(page.read_text(), metafile)
    page = CONFIGS / 'README.md'
    tables[page] = with_counts(page.read_text(), metafiles)
    stale = []
    for page, text in tables.items():
        if text != page.read_text():
            stale.append(str(page.relative_to(REPO)))
            if not check:
                page.write_text(text)
    if stale and check:
        sys.exit(f'not what the metafiles say: {", ".join(stale)}; run python tools/dev/zoo_tables.py')
    print(f'{"written" if stale else "up to date"}: {", ".join(stale) or "all tables"}')


if __name__ == '__main__':
    main()
