"""Loading checkpoints of whole networks, in the layouts of several libraries, into a backbone."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from icconv_mm.errors import InputError
from icconv_mm.patterns.supernet import embed_taps
from icconv_mm.versions import command_of

# the classifiers of torchvision, timm and mmpretrain
_HEADS = ('fc.', 'head.')
# split convolutions: sub-convolutions of IC-Conv, levels of PyConv
_OFFICIAL = re.compile(r'\.conv_list\.|layer\d\.\d+\.conv[12]\.conv2_\d\.')
_SQUEEZE = re.compile(r'layer\d\.\d+\.se(_layer|_module)?\.')
_OF_A_BACKBONE = re.compile(r'(stem|layer\d|(conv|bn|gn|in|ln)\d)\.')
_PART = 'icconv_mm.part'  # key in the metadata of a state dict


def as_part(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a copy of a state dict for which :func:`keep_backbone_keys` allows missing and unexpected weights.

    A hook does not get ``strict``: torch passes True. The metadata, which torch passes to the hook, belong to one call.
    """
    if not isinstance(state_dict, Mapping):
        return state_dict  # torch refuses this
    part, metadata = OrderedDict(state_dict), getattr(state_dict, '_metadata', None) or {}
    part._metadata = {**metadata, '': {**metadata.get('', {}), _PART: True}}
    return part


def keep_backbone_keys(module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict, *_) -> None:
    """A ``load_state_dict`` pre-hook: keeps in ``state_dict`` the weights of the backbone, under its own names.

    The deep stems and pooled shortcuts of mmpretrain, mmpose and timm have other numbers and are renamed. For a
    backbone alone: torchvision and timm have the backbone's keys and a classifier's; mmpretrain, mmseg and mmdet have
    them under ``backbone.``, beside those of necks and heads; trainers add a ``model`` or ``module.``. All weights must
    then load, also by mmengine, which would report the others and continue; of a part (:func:`as_part`) those in the
    file. 3x3 kernels become those of a supernet. Within a larger model (``prefix``) other keys are not checked.

    Raises:
        InputError: If the file is an official IC-Conv or PyConv checkpoint, whose convolutions have other keys, or one
            of a network with squeeze and excitation.
        ArchitectureMismatchError: If weights of the backbone or of the file are unmatched, or have another shape or
            kind; the message lists their keys. To load a part on purpose: ``net.load_state_dict(part, strict=False)``.
    """
    from icconv_mm.checkpoints.matching import state_dict_of

    for key in state_dict:
        if key.startswith(prefix) and _OFFICIAL.search(key):
            source = 'IC-Conv' if '.conv_list.' in key else 'PyConv'
            raise InputError(
                f'{key!r} is a key of an official {source} checkpoint: convert the file with '
                f'{command_of("convert_checkpoint")} first'
            )
        if key.startswith(prefix) and _SQUEEZE.search(key):
            raise InputError(
                f'{key!r} belongs to an SE-ResNet (squeeze and excitation), which {type(module).__name__} cannot '
                'load: take the weights of the ResNet or ResNeXt of the same depth'
            )
    if not prefix:
        weights = dict(state_dict_of(state_dict))
        if any(key.startswith('backbone.') for key in weights):
            weights = {
                key.removeprefix('backbone.'): value for key, value in weights.items() if key.startswith('backbone.')
            }
        state_dict.clear()
        state_dict.update((key, value) for key, value in weights.items() if not key.startswith(_HEADS))
    _rename(module, state_dict, prefix)
    if not prefix:
        _widen(module, state_dict)
    if getattr(module, 'adapt_stem', False):
        _adapt_stem(module, state_dict, prefix)
    if not prefix:
        _check_keys(module, state_dict, is_part=_PART in local_metadata)


def _rename(module: nn.Module, state_dict: dict, prefix: str) -> None:
    """Renames layers of deep stems and pooled shortcuts of other libraries, in place."""
    expected = module.state_dict()
    inside = {key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)}

    def renamed(key: str) -> str:
        if match := re.fullmatch(r'(layer\d\.\d+\.downsample\.)([01])\.(\w+)', key):
            # mmpretrain and mmpose have a pooling layer only for a stride
            shifts = f'{match[1]}0.weight' in inside and f'{match[1]}0.weight' not in expected
            return f'{match[1]}{int(match[2]) + 1}.{match[3]}' if shifts else key
        if key in expected:
            return key
        if match := re.fullmatch(r'stem\.(\d)\.([a-z]+)\.(\w+)', key):  # ConvModules of mmpretrain and mmpose
            return f'stem.{3 * int(match[1]) + (match[2] != "conv")}.{match[3]}'
        if 'conv1.6.weight' in inside and key.startswith(('conv1.', 'bn1.')):  # timm: bn1 is the last norm of the stem
            return re.sub('^conv1', 'stem', re.sub('^bn1', 'stem.7', key))
        return key

    names = {key: prefix + renamed(key.removeprefix(prefix)) for key in state_dict if key.startswith(prefix)}
    if any(old != new for old, new in names.items()):
        values = {names.get(key, key): value for key, value in state_dict.items()}
        state_dict.clear()
        state_dict.update(values)


def _widen(module: nn.Module, state_dict: dict) -> None:
    """Embeds 3x3 kernels in those of a supernet, in place."""
    for name, layer in module.named_modules():
        weight, d_max = state_dict.get(f'{name}.weight'), getattr(layer, 'supernet_d_max', 1)
        if d_max > 1 and isinstance(weight, Tensor) and weight.shape[2:] == (3, 3):
            state_dict[f'{name}.weight'] = embed_taps(weight, d_max)


def _stem_weight(module: nn.Module) -> str | None:
    """Returns the key of the weight that sees the image; None for a stem of another kind."""
    return next((key for key in ('conv1.weight', 'stem.0.weight') if key in module.state_dict()), None)


def _adapt_stem(module: nn.Module, state_dict: dict, prefix: str) -> None:
    """Adapts a stem's weight to the module's input channels, in place, as timm does.

    One channel gets the sum of the file's; more take them in turn, scaled by the ratio of the numbers of channels.
    """
    key = _stem_weight(module)
    weight = state_dict.get(f'{prefix}{key}')
    if not isinstance(weight, Tensor) or weight.dim() != 4:
        return  # the check says what it is
    given, needed = weight.shape[1], module.state_dict()[key].shape[1]
    if needed == 1 < given:
        state_dict[f'{prefix}{key}'] = weight.sum(1, keepdim=True)
    elif needed != given:
        state_dict[f'{prefix}{key}'] = weight[:, [channel % given for channel in range(needed)]] * (given / needed)


def _check_keys(module: nn.Module, state_dict: dict, is_part: bool) -> None:
    """Raises ArchitectureMismatchError unless all weights fit and, except for a part, none is unmatched."""
    from icconv_mm.checkpoints.matching import ArchitectureMismatchError, Mismatch, compare

    differences = compare(module, state_dict)
    if is_part:
        differences = Mismatch((), (), differences.shapes, differences.kinds)
    stages = tuple(f'{name}.' for name in dict(module.named_children()) if name.startswith('layer'))
    # a network of fewer stages ignores the others of the file
    left = tuple(
        key
        for key in differences.unexpected
        if _OF_A_BACKBONE.match(key) and (not key.startswith('layer') or key.startswith(stages))
    )
    if mismatch := Mismatch(differences.missing, left, differences.shapes, differences.kinds):
        hints = [
            f'{option}=True'
            for option, key in (('deep_stem', 'stem.0.weight'), ('avg_down', 'layer2.0.downsample.2.weight'))
            if key in differences.unexpected
        ]
        hint = f'\n  the file is of a network with {" and ".join(hints)}' if hints else ''
        if any('.pyconv_levels.' in key for key in differences.missing):
            hint += (
                '\n  the file has no pyramidal kernels: give PyConv weights (docs/pyconv.md, Released weights), or '
                'init_cfg=None to start from random weights'
            )
        if _stem_weight(module) in {key for key, *_ in differences.shapes}:
            hint += (
                '\n  the stem of the file is for images of other channels: adapt_stem=True adapts it, init_cfg=None '
                'starts from random weights'
            )
        raise ArchitectureMismatchError(
            f'the weights do not fit {type(module).__name__}, nothing was loaded:\n  {mismatch}{hint}'
        )
