"""Reading configs once, and a step of training with each on random annotated images."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from random_batches import make_batch, shrink

REPO = Path(__file__).resolve().parents[2]
CONFIGS = REPO / 'configs'
SIZE = 64  # of the images, in pixels
POOLING = 9  # PyConvHead needs so many pixels at the stride of its backbone


def read_config(path: Path) -> Config:
    """A copy of a config that is read once."""
    return deepcopy(_read(path))


@cache
def _read(path: Path) -> Config:
    with patch.object(Config, '_get_cfg_path', staticmethod(_file_of)):
        return Config.fromfile(path, import_custom_modules=False)


_look_up = cache(Config._get_cfg_path)


def _file_of(name: str, path: str):
    """What mmengine finds for a name in ``_base_``, looked up once for all that inherit from it: of a library, this
    takes half a second."""
    return _look_up(name, '' if '::' in name else path)


def upstream_of(path: Path) -> str | None:
    """The config of a task library that a recipe inherits from as a whole, directly or through others."""
    for base in Config._get_base_files(str(path)):
        if '::' not in base:
            if upstream := upstream_of(path.parent / base):
                return upstream
        elif '::_base_/' not in base:
            return base
    return None


def learn_one_step_and_predict(cfg, warm_up=False):
    """Builds the model of a config, takes a step on random images and predicts for them.

    Args:
        cfg: The config.
        warm_up: Take a small step before, whose gradients do not count.

    Returns:
        The model, its parameters before the step, and the loss.
    """
    pools = 'PyConvHead' in str(cfg.model.get('decode_head'))
    size = POOLING * cfg.model.backbone.get('output_stride', 8) if pools else SIZE
    if cfg.model.backbone.get('dcn'):
        size = 2 * SIZE  # the maps of the last stage have to be larger than its kernels
    shrink(cfg.model, size)
    if 'data_preprocessor' in cfg:  # as the runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    batch = make_batch(cfg, model, size)
    if hasattr(model, 'level_embed'):  # of mmdet's DETRs: memory as it was found, until weights are initialised
        torch.nn.init.normal_(model.level_embed)

    model.train()
    for lr in (1e-3, None) if warm_up else (None,):
        model.zero_grad()
        loss, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
        loss.backward()
        if lr:
            torch.optim.SGD(model.parameters(), lr=lr).step()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.optim.SGD(model.parameters(), lr=0.1).step()

    model.eval()
    if cfg.model.get('head', {}).get('type') == 'DEKRHead':
        batch = {key: values[:1] for key, values in batch.items()}  # it predicts for one image at a time
    with torch.no_grad():
        results = model(**model.data_preprocessor(batch, False), mode='predict')
    assert len(results) == len(batch['inputs'])
    return model, before, loss
