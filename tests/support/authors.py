"""What the authors of the papers trained with, as tests/data/authors.yml tells it."""

from fnmatch import fnmatch

import yaml
from config_utils import CONFIGS, REPO

FACTS = yaml.safe_load((REPO / 'tests/data/authors.yml').read_text())
RECIPES = sorted(f'{path.parent.name}/{path.stem}' for path in CONFIGS.glob('*/*.py') if path.parent.name[0] != '_')


def recipes_of(entry):
    """The recipes of an entry: names and patterns, and with ``!`` those that are not meant."""
    chosen = [name for name in entry['recipes'] if not name.startswith('!')]
    left_out = [name[1:] for name in entry['recipes'] if name.startswith('!')]
    for name in chosen + left_out:
        assert any(fnmatch(recipe, name) for recipe in RECIPES), f'{name}: there is no such recipe'
    return {
        recipe
        for recipe in RECIPES
        if any(fnmatch(recipe, name) for name in chosen) and not any(fnmatch(recipe, name) for name in left_out)
    }


def authors_of(recipe):
    """What the authors set: setting -> value; and the family."""
    entries = [entry for entry in FACTS if recipe in recipes_of(entry)]
    settings = {}
    for entry in entries:
        assert not settings.keys() & entry['settings'].keys(), f'{recipe}: a setting is told twice'
        settings |= {name: fact['value'] for name, fact in entry['settings'].items()}
    (family,) = {entry['family'] for entry in entries}
    return settings, family
