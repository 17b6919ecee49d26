"""docs/backbones.md and docs/install.md: the examples run, and the ways to install are those that there are."""

import sys

import pytest
from pages import REPO, code_block

import icconv_mm


def test_the_example_without_a_config_runs():
    names: dict = {}
    exec(code_block('docs/backbones.md', 'list_models'), names)
    assert [level.shape[1] for level in names['maps']] == names['net'].feature_info.channels() == [512, 1024, 2048]
    assert names['net'].feature_info.reduction() == [8, 16, 32]
    assert names['logits'].shape == (1, 10)
    assert icconv_mm.list_models('ic_resnext*')[:2] == ['ic_resnext101_32x4d', 'ic_resnext101_32x8d']


@pytest.mark.skipif(sys.version_info < (3, 11), reason='tomllib comes with Python 3.11')
def test_the_install_page_names_extras_of_the_project():
    import tomllib

    extras = tomllib.loads((REPO / 'pyproject.toml').read_text())['project']['optional-dependencies']
    text = (REPO / 'docs/install.md').read_text()
    named = {'lite', 'openmmlab', 'detection', 'segmentation', 'pose', 'classification'}
    assert named <= extras.keys() and all(f'`{name}`' in text or f'[{name}]' in text for name in named)


def test_the_install_page_prints_the_error_of_torch_alone():
    """As the page prints it."""
    from icconv_mm import _torch_only

    with pytest.raises(icconv_mm.errors.InputError) as error:
        _torch_only.build_conv_layer(dict(type='DCNv2'), 8, 8, 3)
    assert f'# {error.value}' in code_block('docs/install.md', 'DCNv2')
