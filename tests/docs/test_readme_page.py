"""README.md: its code runs; it and docs/install.md say what versions.py, pyproject.toml and CITATION.cff say."""

import re

import pytest
import torch
import yaml
from mmengine.registry import MODELS, init_default_scope
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from pages import REPO, code_block, code_blocks, config, section, tables

from icconv_mm.versions import SUPPORTED

tomllib = pytest.importorskip('tomllib')  # Python 3.11
RANGES = {names[0]: SpecifierSet(f'>={low},<{high}') for names, low, high in SUPPORTED.values()}


def test_lines_of_torch_print_what_they_say(capsys):
    block = code_block('README.md', 'import torch')
    exec(compile(block, 'README.md', 'exec'), {})
    (shown,) = re.findall(r'^print\(.*# (.*)$', block, re.MULTILINE)
    assert capsys.readouterr().out.strip() == shown


def test_config_changes_the_backbone_alone(tmp_path):
    pytest.importorskip('mmdet')
    first, *_ = code_blocks('README.md')
    cfg = config(first, tmp_path)
    init_default_scope('mmdet')
    with torch.device('meta'):
        backbone = MODELS.build(cfg.model).backbone
    assert type(backbone).__name__ == 'ICResNet' and backbone.init_cfg['checkpoint'] == 'torchvision://resnet50'


def test_supported_versions_are_those_of_the_package():
    ((_, *rows),) = tables(section('docs/install.md', 'Supported versions'))
    shown = {library: SpecifierSet(supported.split(';')[0]) for library, supported, _ in rows if library in RANGES}
    assert shown == RANGES
    project = tomllib.loads((REPO / 'pyproject.toml').read_text())['project']
    (python,) = (supported for library, supported, _ in rows if library == 'Python')
    listed = [
        classifier.rpartition(' ')[2]
        for classifier in project['classifiers']
        if re.search(r'Python :: 3\.\d', classifier)
    ]
    assert python == f'{listed[0]} to {listed[-1]}' and project['requires-python'] == f'>={listed[0]}'


def test_requirements_have_the_supported_ranges():
    project = tomllib.loads((REPO / 'pyproject.toml').read_text())['project']
    extras = project['optional-dependencies']
    named = [Requirement(text) for group in (project['dependencies'], *extras.values()) for text in group]
    ranges: dict[str, list[SpecifierSet]] = {}
    for requirement in named:
        ranges.setdefault(requirement.name, []).append(requirement.specifier)
    assert {name: ranges[name][0] for name in RANGES} == RANGES
    narrower = {
        name: others
        for name in RANGES
        if (others := [specifier for specifier in ranges[name] if specifier != RANGES[name]])
    }
    assert narrower == {'mmcv': [SpecifierSet('<2.2')] * 2}  # mmdet's and mmsegmentation's own limit, which README says
    assert 'mmdet 3.3 and mmsegmentation 1.2 need <2.2' in section('docs/install.md', 'Supported versions')


def test_papers_are_those_of_the_citation_file():
    references = yaml.safe_load((REPO / 'CITATION.cff').read_text())['references']
    (_, *papers), *_ = tables((REPO / 'README.md').read_text())
    assert [re.search(r'\((.+?)\)', paper).group(1) for paper, *_ in papers] == [
        reference['url'] for reference in references
    ]


def test_it_is_read_in_a_minute():
    assert len((REPO / 'README.md').read_text().split()) <= 1000
