"""The backbone of a config for the user's own images, and its initial weights."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.device import get_device

from icconv_mm import models
from icconv_mm.app.runs.threads import is_narrow
from icconv_mm.arguments import require_known
from icconv_mm.checkpoints import reading
from icconv_mm.checkpoints.loader import cached_weights, fetch_weights
from icconv_mm.checkpoints.matching import state_dict_of
from icconv_mm.checkpoints.shipped import find_weights, is_address, origin_of, path_of
from icconv_mm.errors import UserError
from icconv_mm.fetch import FetchError
from icconv_mm.files import configs_folder, require_file
from icconv_mm.versions import is_installed

_TRIES = 5  # seconds to reach the server of the weights
_WEIGHTS = re.compile(r'(?:ic_)?resnet(18|34|50|101|152)')
# learning rates from random numbers and from weights, by the kind of the backbone
_RATES = {
    'narrow': (2e-3, 2e-3),  # from weights, a tenth of it costs BCCD 13 box AP: tools/dev/pretrain
    'shallow': (1e-3, 2e-4),
    'deep': (5e-4, 2e-4),
}
_COST = 'which takes several times the images and epochs; --pretrained FILE gives others'


class Start(NamedTuple):
    """What a network starts from: random numbers where both are None.

    Attributes:
        init_cfg: Weights of the backbone.
        load_from: A checkpoint of the whole network but the layers that depend on the classes.
    """

    init_cfg: dict | None = None
    load_from: str | None = None


def default_backbone() -> str:
    """Returns the name of the backbone for who names none: on a CPU a small one, which learns more in the same time."""
    return 'ic_resnet50' if get_device() != 'cpu' else 'small'


def learning_rate(backbone: dict, is_deep: bool, start: Start) -> float:
    """Returns the learning rate of a backbone, given by its config; ``is_deep`` says that it has bottlenecks."""
    kind = 'deep' if is_deep else 'narrow' if is_narrow(backbone) else 'shallow'
    return _RATES[kind][start != Start()]


def backbone_of(name: str) -> dict:
    """Returns the config of a backbone by its name.

    Raises:
        InputError: The backbone does not exist.
    """
    files = {path.stem: path for path in sorted((configs_folder() / '_base_' / 'backbones').glob('*.py'))}
    if name in files:
        return Config.fromfile(files[name]).backbone.to_dict() | dict(norm_eval=False)
    require_known([name], sorted({*files, *models.list_models()}), 'backbone: nothing is called')
    kind, options = models.backbone_options(name)
    pattern = dict(pattern='geometric_d4') if kind.startswith('IC') else {}
    return dict(type=f'icconv_mm.{kind}', **options, **pattern, norm_eval=False)


def start_of(backbone: str, task: str, weights: str, say: Any, load_from: str | None = None) -> Start:
    """Returns what a network starts from; calls ``say`` with the choice or its cost.

    Args:
        backbone: Its name.
        task: The task.
        weights: ``pretrained`` of :func:`icconv_mm.apis.config_for`.
        say: Called with a line.
        load_from: A checkpoint of the whole network, beside which ``'auto'`` takes no weights.

    Raises:
        MissingFileError, CheckpointError: ``weights`` is a file that is missing or cannot be read.
    """
    if load_from and weights == 'auto':
        say(f'weights: those of {load_from}, for the whole network')
        return Start()
    tasks = ('classification', 'detection') if task == 'classification' else ('detection', 'classification')
    if weights == 'auto' and (address := find_weights(backbone, *tasks)) is not None:
        say(f'weights: {address}, trained on {origin_of(address)}; --pretrained none starts from random numbers')
        if task != 'classification' and address == find_weights(backbone, 'detection'):
            return Start(load_from=address)
        return Start(dict(type='Pretrained', checkpoint=address))
    return Start(_init_cfg_of(backbone, weights, say))


def _init_cfg_of(backbone: str, weights: str, say: Any) -> dict | None:
    """Returns the weights of a backbone that the package does not have, as an ``init_cfg``; None for random numbers."""
    if weights in ('auto', 'none') and is_narrow(backbone_of(backbone)):
        say(f'weights: {backbone} starts from random numbers')
        return None
    if weights == 'none':
        say(f'weights: {backbone} starts from random numbers, {_COST}')
        return None
    if weights == 'auto':
        match = _WEIGHTS.fullmatch(re.sub(r'_k\d+(_seg)?$', '', backbone))
        if match is None:
            say(f'weights: none are published for {backbone} in this form: it starts from random numbers, {_COST}')
            return None
        weights = f'torchvision://resnet{match.group(1)}'
        if (problem := _fetched(f'resnet{match.group(1)}')) is not None:
            say(f'weights: {weights} cannot be fetched ({problem}): {backbone} starts from random numbers, {_COST}')
            return None
        say(f'weights: {weights}, trained on ImageNet with dense convolutions')
    if is_address(weights):
        path_of(weights)  # it must be there
    if '://' in weights:
        return dict(type='Pretrained', checkpoint=weights)
    require_file(weights, 'pretrained')
    keys = state_dict_of(reading.read(weights))
    prefix = dict(prefix='backbone.') if any(key.startswith('backbone.') for key in keys) else {}
    return dict(type='Pretrained', checkpoint=str(Path(weights).absolute()), **prefix)


def _fetched(name: str) -> str | None:
    """Downloads torchvision's weights; returns why it fails, or None."""
    from mmengine.runner.checkpoint import get_torchvision_models

    if not is_installed('torchvision'):
        return 'torchvision is not installed'
    address = get_torchvision_models()[name]
    if not cached_weights(address).is_file() and os.environ.get('ICCONV_MM_OFFLINE', '0') not in ('', '0'):
        return 'ICCONV_MM_OFFLINE is set'
    try:
        fetch_weights(address, timeout=_TRIES)
    except FetchError as error:
        return error.reason
    except UserError as error:  # an answer that is no checkpoint, such as a portal's page
        return str(error)
    return None
