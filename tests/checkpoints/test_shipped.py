"""Weights of the package: found by the files that are there, named by an address, loaded by mmengine."""

import re

import pytest
import torch
from mmengine.runner import CheckpointLoader
from shipped_weights import fill

from icconv_mm.backbones import ICResNet
from icconv_mm.checkpoints import loader, shipped
from icconv_mm.errors import MissingFileError
from icconv_mm.models import backbone_options


def test_weights_are_found_by_their_files(weights_folder):
    assert shipped.find_weights('small', 'classification', 'detection') is None
    fill(weights_folder, 'small', 'detection')
    assert shipped.find_weights('small', 'classification', 'detection') == 'icconv_mm://small_detection'
    assert shipped.find_weights('small', 'classification') is None is shipped.find_weights('small_s8', 'detection')
    fill(weights_folder, 'small', 'classification')
    assert shipped.find_weights('small', 'classification', 'detection') == 'icconv_mm://small'
    assert shipped.origin_of('icconv_mm://small') == 'drawn images' and shipped.size_of('icconv_mm://small') == 64


@pytest.mark.parametrize('name', ['other', '../small', '', '*'])
def test_weights_that_are_not_there(weights_folder, name):
    fill(weights_folder, 'small', 'classification')
    with pytest.raises(MissingFileError, match=r'icconv_mm has no such weights; there are: small$'):
        shipped.path_of(f'icconv_mm://{name}')
    (weights_folder / 'small.safetensors').unlink()
    with pytest.raises(MissingFileError, match=r'there are: none$'):
        shipped.path_of('icconv_mm://small')


@pytest.mark.parametrize('checkpoint', ['icconv_mm://small', 'icconv_mm://small_detection'])
@pytest.mark.parametrize('prefix', [{}, {'prefix': 'backbone.'}])
def test_a_config_loads_them_by_their_address(weights_folder, checkpoint, prefix):
    """As ``mim train`` and other programs of mmengine do."""
    weights = fill(weights_folder)[checkpoint]
    loader.patch_checkpoint_loading()
    content = CheckpointLoader.load_checkpoint(checkpoint)
    assert content['state_dict'].keys() == weights.keys()
    init = dict(type='Pretrained', checkpoint=checkpoint, **prefix)
    network = ICResNet(**backbone_options('small')[1], init_cfg=init)
    network.init_weights()
    for key, value in network.state_dict().items():
        assert key.endswith('num_batches_tracked') or torch.equal(value, weights[f'backbone.{key}']), key


def test_what_configs_and_pages_name_is_there(repo):
    files = [*repo.glob('configs/**/*.py'), *repo.glob('*.md'), *repo.glob('docs/*.md'), shipped.FOLDER / 'README.md']
    names = {name for file in files for name in re.findall(rf'{shipped.SCHEME}(\w+)', file.read_text())} - {'NAME'}
    assert names and names == {path.stem for path in shipped.FOLDER.glob('*.safetensors')}
