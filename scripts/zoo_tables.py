"""Writes the tables of ``configs/*/README.md`` from the ``metafile.yml`` beside each; ``--check`` only compares.

A table stands below the line ``<!-- table: NAME OF A COLLECTION -->`` and has one row for each of its models. Columns
are what the models' metadata tell and the metrics of their results, with the origin of the figures: what all models of
a collection share is told by the collection alone.
"""

import argparse
import re
import sys
from pathlib import Path

import yaml

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
PLACE = re.compile(r'(<!-- table: (.+?) -->\n)((?:\|.*\n)*)')


def table(metafile: dict, collection: str) -> str:
    """The rows of a collection as a table in Markdown.

    Args:
        metafile: What a ``metafile.yml`` holds.
        collection: The name of one of its collections.

    Raises:
        KeyError: There is no such collection, or figures have no origin (``Figures: published`` or ``measured``).
    """
    shared = {each['Name']: each['Metadata'] for each in metafile['Collections']}[collection]
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
    return PLACE.sub(lambda place: place.group(1) + table(metafile, place.group(2)), text)


def main() -> None:
    parser = argparse.ArgumentParser(description='Write the tables of configs/*/README.md from the metafiles.')
    parser.add_argument('--check', action='store_true', help='write nothing; exit with status 1 if a table is stale')
    check = parser.parse_args().check
    stale = []
    for path in sorted(CONFIGS.glob('*/metafile.yml')):
        readme = path.with_name('README.md')
        text = readme.read_text()
        made = with_tables(text, yaml.safe_load(path.read_text()))
        if made != text:
            stale.append(str(readme.relative_to(CONFIGS.parent)))
            if not check:
                readme.write_text(made)
    if stale and check:
        sys.exit(f'not what the metafile says: {", ".join(stale)}; run python scripts/zoo_tables.py')
    print(f'{"written" if stale else "up to date"}: {", ".join(stale) or "all tables"}')


if __name__ == '__main__':
    main()
