"""The model zoo's three accounts agree: config files, metafiles, and README tables, which are made from these."""

import re
import subprocess
import sys

import pytest
import yaml
from config_utils import CONFIGS, REPO, read_config

SCRIPT = REPO / 'tools/dev/zoo_tables.py'
METAFILES = sorted(CONFIGS.glob('*/metafile.yml'))
FAMILIES = [path.parent for path in METAFILES]


def models_of(family):
    """The models of a metafile, with what their collection says of all of them."""
    metafile = yaml.safe_load((family / 'metafile.yml').read_text())
    shared = {collection['Name']: collection['Metadata'] for collection in metafile['Collections']}
    return [
        {**model, 'Metadata': {**shared[model['In Collection']], **model.get('Metadata', {})}}
        for model in metafile['Models']
    ]


def for_families():
    return pytest.mark.parametrize('family', FAMILIES, ids=lambda path: path.name)


@for_families()
def test_metafile_names_configs_that_exist(family):
    for model in models_of(family):
        path = REPO / model['Config']
        assert path.is_file(), model['Config']
        assert (path.stem, path.parent) == (model['Name'], family)


@for_families()
def test_every_recipe_is_in_metafile_and_readme(family):
    recipes = {path.stem for path in family.glob('*.py') if 'miniature' not in path.stem}
    assert {model['Name'] for model in models_of(family)} == recipes
    text = (family / 'README.md').read_text()
    linked = re.findall(r'^\| \[(.+)\]\((.+)\.py\) \|', text, re.MULTILINE)
    assert all(text == target for text, target in linked)
    assert sorted(text for text, _ in linked) == sorted(recipes)
    assert [path.name for path in family.glob('*miniature.py') if path.name not in text] == []


@for_families()
def test_metadata_is_the_configs(family):
    for model in models_of(family):
        cfg, metadata = read_config(REPO / model['Config']), model['Metadata']
        backbone = cfg.model.backbone
        assert metadata.get('Dilation Pattern') == backbone.get('pattern'), model['Name']
        if 'Backbone' in metadata:
            assert metadata['Backbone'] == f'{backbone.type.removeprefix("icconv_mm.")}-{backbone.depth}'
        length = {'Epochs': cfg.train_cfg.get('max_epochs'), 'Iterations': cfg.train_cfg.get('max_iters')}
        assert {key: metadata[key] for key in length if key in metadata} == {k: v for k, v in length.items() if v}


def test_tables_are_the_metafiles():
    run = subprocess.run([sys.executable, SCRIPT, '--check'], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_model_index_is_what_its_library_reads():
    """mim and the model-index tools read it through this library."""
    modelindex = pytest.importorskip('modelindex')
    index = modelindex.load(str(REPO / 'model-index.yml'))
    index.build_models_with_collections()
    models = index.models if isinstance(index.models, list) else list(index.models)
    assert {model.name for model in models} == {model['Name'] for family in FAMILIES for model in models_of(family)}
    assert all(model.full_model.paper['URL'].startswith('https://arxiv.org/abs/') for model in models)
