"""README.md: its code runs, and its tables say what versions.py, pyproject.toml, metafiles and CITATION.cff say."""

import re

import pytest
import torch
import yaml
from mmengine.registry import MODELS, init_default_scope
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from pages import REPO, code_block, code_blocks, config, section, tables

from icconv_mm import backbones
from icconv_mm.versions import SUPPORTED

tomllib = pytest.importorskip('tomllib')  # Python 3.11
RANGES = {names[0]: SpecifierSet(f'>={low},<{high}') for names, low, high in SUPPORTED.values()}


def test_lines_of_torch_print_what_they_say(capsys):
    block = code_block('README.md', 'import torch')
    exec(compile(block, 'README.md', 'exec'), {})
    (shown,) = re.findall(r'^print\(.*# (.*)$', block, re.MULTILINE)
    assert capsys.readouterr().out.strip() == shown


def test_config_changes_the_backbone_alone(tmp_path, monkeypatch, published_patterns):
    pytest.importorskip('mmdet')
    monkeypatch.setenv('ICCONV_MM_CACHE', str(published_patterns.parent))
    first, *_ = code_blocks('README.md')
    cfg = config(first, tmp_path)
    init_default_scope('mmdet')
    with torch.device('meta'):
        backbone = MODELS.build(cfg.model).backbone
    assert type(backbone).__name__ == 'ICResNet' and backbone.init_cfg['checkpoint'] == 'torchvision://resnet50'


def test_supported_versions_are_those_of_the_package():
    ((_, *rows),) = tables(section('README.md', 'Supported versions'))
    shown = {library: SpecifierSet(supported.split(';')[0]) for library, supported, _ in rows if library in RANGES}
    assert shown == RANGES
    project = tomllib.loads((REPO / 'pyproject.toml').read_text())['project']
    (python,) = (supported for library, supported, _ in rows if library == 'Python')
    listed = [each.rpartition(' ')[2] for each in project['classifiers'] if re.search(r'Python :: 3\.\d', each)]
    assert python == f'{listed[0]} to {listed[-1]}' and project['requires-python'] == f'>={listed[0]}'


def test_requirements_have_the_supported_ranges():
    project = tomllib.loads((REPO / 'pyproject.toml').read_text())['project']
    extras = project['optional-dependencies']
    named = [Requirement(each) for group in (project['dependencies'], *extras.values()) for each in group]
    found: dict[str, list[SpecifierSet]] = {}
    for each in named:
        found.setdefault(each.name, []).append(each.specifier)
    assert {name: found[name][0] for name in RANGES} == RANGES
    narrower = {name: others for name in RANGES if (others := [each for each in found[name] if each != RANGES[name]])}
    assert narrower == {'mmcv': [SpecifierSet('<2.2')] * 2}  # mmdet's and mmsegmentation's own limit, which README says
    assert 'mmdet 3.3 and mmsegmentation 1.2 need <2.2' in section('README.md', 'Supported versions')


def models() -> dict[str, dict]:
    files = (yaml.safe_load(path.read_text()) for path in REPO.glob('configs/*/metafile.yml'))
    return {model['Config']: model for file in files for model in file['Models']}


def result(model: dict) -> tuple[str, str]:
    (found,) = (each for each in model['Results'] if len(each['Metrics']) == 1)
    ((metric, value),) = found['Metrics'].items()
    return f'{found["Dataset"]}, {metric}', f'{value}'


def test_published_results_are_those_of_the_metafiles():
    ((_, *rows),) = tables(section('README.md', 'Published results'))
    assert len(rows) == 6
    known = models()
    for name, _, what, dense, published in rows:
        model = known[re.search(r'\((.+)\)', name).group(1)]
        assert result(model) == (what, published), name
        link = re.fullmatch(r'\[(.+)\]\((.+)\)', dense)
        if link:
            assert result(known[link.group(2)]) == (what, link.group(1)), name
        else:
            assert dense in {str(value) for key, value in model['Metadata'].items() if key.endswith('Baseline')}, name


def test_depths_are_those_of_the_classes():
    text = ' '.join(section('README.md', 'Tasks and architectures').split())
    listed = re.search(
        r'`(\w+)`, `(\w+)` and `(\w+)` take the depths ([\d, and]+), `(\w+)` and `(\w+)` ([\d, and]+)\.', text
    )
    *wide, depths, first, second, fewer = listed.groups()
    told = dict.fromkeys(wide, depths) | {first: fewer, second: fewer}
    found = {name: sorted(getattr(backbones, name).arch_settings) for name in told}
    found['ICResNeXt'] = [depth for depth in found['ICResNeXt'] if depth >= 50]  # groups are for bottlenecks
    assert {name: [int(depth) for depth in re.findall(r'\d+', text)] for name, text in told.items()} == found


def test_citations_are_those_of_the_citation_file():
    """The entries of the README are the references of CITATION.cff, which are the papers of the first table."""
    references = yaml.safe_load((REPO / 'CITATION.cff').read_text())['references']
    (block,) = code_blocks('README.md', 'bibtex')
    entries = [dict(re.findall(r'^  (\w+) = \{(.*?)\},?$', entry, re.M | re.S)) for entry in block.split('@')[1:]]
    assert len(entries) == len(references) == 4
    for entry, reference in zip(entries, references):
        authors = ' and '.join(f'{each["family-names"]}, {each["given-names"]}' for each in reference['authors'])
        assert ' '.join(entry['author'].split()) == authors
        assert (entry['title'], entry['year']) == (reference['title'], str(reference['year']))
    (_, *papers), *_ = tables((REPO / 'README.md').read_text())
    assert [re.search(r'\((.+?)\)', paper).group(1) for paper, *_ in papers] == [each['url'] for each in references]
