"""Checkpoints of whole networks, loaded into a backbone alone."""

from torch import nn

# the classifiers of torchvision and mmpretrain
_HEADS = ('fc.', 'head.')


def keep_backbone_keys(module: nn.Module, state_dict: dict, prefix: str, *_) -> None:
    """A ``load_state_dict`` pre-hook: leaves in ``state_dict`` what belongs to the backbone, under its own names.

    torchvision has the backbone's keys and ``fc.*``; mmpretrain and mmdet have them under ``backbone.``, beside those
    of necks and heads. Within a larger model (``prefix``) the keys are the model's own and stay.

    Raises:
        ValueError: If the file is an official IC-Conv checkpoint, whose convolutions are in pieces.
    """
    if pieces := next((key for key in state_dict if key.startswith(prefix) and '.conv_list.' in key), None):
        raise ValueError(
            f'{pieces!r} is a key of an official IC-Conv checkpoint: convert the file with '
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
