"""Checkpoints of whole networks, loaded into a backbone alone."""

import re

from torch import nn

# the classifiers of torchvision and mmpretrain
_HEADS = ('fc.', 'head.')
# convolutions in pieces: sub-convolutions of IC-Conv, levels of PyConv
_OFFICIAL = re.compile(r'\.conv_list\.|layer\d\.\d+\.conv[12]\.conv2_\d\.')


def keep_backbone_keys(module: nn.Module, state_dict: dict, prefix: str, *_) -> None:
    """A ``load_state_dict`` pre-hook: leaves in ``state_dict`` what belongs to the backbone, under its own names.

    torchvision has the backbone's keys and ``fc.*``; mmpretrain and mmdet have them under ``backbone.``, beside those
    of necks and heads. Within a larger model (``prefix``) the keys are the model's own and stay.

    Raises:
        ValueError: If the file is an official IC-Conv or PyConv checkpoint, whose convolutions have other keys.
    """
    if pieces := next((key for key in state_dict if key.startswith(prefix) and _OFFICIAL.search(key)), None):
        source = 'IC-Conv' if '.conv_list.' in pieces else 'PyConv'
        raise ValueError(
            f'{pieces!r} is a key of an official {source} checkpoint: convert the file with '
            '`python tools/convert_checkpoint.py` first'
        )
    if prefix:
        return
    inside = 'backbone.'
    if any(key.startswith(inside) for key in state_dict):
        own = {key[len(inside) :]: value for key, value in state_dict.items() if key.startswith(inside)}
    else:
        own = {key: value for key, value in state_dict.items() if not key.startswith(_HEADS)}
    state_dict.clear()
    state_dict.update(own)
