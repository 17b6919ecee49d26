"""ImageNet weights released with Detectron: R-50, R-101, R-50-GN, R-101-GN, X-101-32x8d, X-101-64x4d, X-152-32x8d-IN5k.

Caffe2 names its blobs ``res2_0_branch2a_w``: stage 2 (the first), block 0, the first convolution. Branch 1 is the
shortcut. Weights have torch's layout, and the first convolution reads BGR.

Batch norms come as scale and shift (``bn_s``, ``bn_b``) into which the statistics went. They become batch norms whose
statistics make them just that: they must stay in evaluation mode (``norm_eval=True``), as in Detectron.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from icconv_mm.checkpoints.conversion import Conversion
from icconv_mm.checkpoints.rules import RenameRule, apply_rules
from icconv_mm.errors import InputError

_EPS = 1e-5  # of torch's batch norms
_STEM = re.compile(r'(?:res_)?conv1_(?P<what>w|b|(?:bn|gn)_\w+)')
_BLOCK = re.compile(r'res(?P<stage>[2-5])_(?P<block>\d+)_branch(?P<branch>1|2[abc])_(?P<what>w|b|(?:bn|gn)_\w+)')
_CLASSIFIER = re.compile(r'(?:fc\d+k?|pred|last_out_L\d+)_(?P<what>w|b)')
_TRAINING = re.compile(r'.*_momentum|lr|iter|model_iter|weight_order|.*_optimizer_iteration')
_BLOCKS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
# of a norm: the blob's ending -> torch's parameter
_NORM = {
    **dict.fromkeys(('s', 'gamma'), 'weight'),
    **dict.fromkeys(('b', 'beta', 'bias'), 'bias'),
    **dict.fromkeys(('rm', 'running_mean'), 'running_mean'),
    **dict.fromkeys(('riv', 'running_var'), 'running_var'),
}


def convert_detectron(conversion: Conversion, rules: Sequence[RenameRule] = ()) -> None:
    """Convert the blobs of a Detectron ImageNet model, as :func:`icconv_mm.checkpoints.load_detectron` reads them.

    Args:
        conversion: The file's tensors; what cannot be placed is left in it.
        rules: Rename rules for other keys.

    Raises:
        ValueError: No Detectron ResNet, or blocks, norms or weights of it are missing.
    """
    for name in conversion.matching(_TRAINING):
        conversion.drop(name, 'state of the training')
    biases = _place_backbone(conversion)
    state = conversion.state_dict
    depth = _depth(state)
    for conv, (name, bias) in biases.items():
        _fold_bias(conversion, conv, name, bias)
    kinds = {_complete_norm(state, conv) for conv in _convolutions(state)}
    if len(kinds) > 1:
        raise InputError(f'the file mixes norms: {", ".join(sorted(kinds))}')
    for name in conversion.matching(_CLASSIFIER):
        what = _CLASSIFIER.fullmatch(name)['what']
        conversion.place(name, f'head.fc.{"weight" if what == "w" else "bias"}')
    apply_rules(conversion, rules)
    conversion.layout = f'Detectron {_name(state, depth)}, {kinds.pop()}'


def _place_backbone(conversion: Conversion) -> dict[str, tuple[str, Tensor]]:
    """Place weights and norms; returns the biases of convolutions, by the convolution: the blob's name and values."""
    biases = {}
    for name in list(conversion.left):
        target = _target(name)
        if target is None:
            continue
        conv, what = target
        if what == 'b':
            biases[conv] = name, conversion.left[name]
        elif what == 'w':
            conversion.place(name, f'{conv}.weight')
        elif (parameter := _NORM.get(what[3:])) is not None:
            conversion.place(name, f'{_norm_of(conv, what[:2])}.{parameter}')
    if 'backbone.conv1.weight' not in conversion.state_dict:
        raise InputError('no Detectron ResNet found: there is no blob conv1_w')
    return biases


def _target(name: str) -> tuple[str, str] | None:
    """A blob's convolution in this package, and what of it the blob is: 'w', 'b', 'bn_s', 'gn_b', ..."""
    if match := _STEM.fullmatch(name):
        return 'backbone.conv1', match['what']
    if match := _BLOCK.fullmatch(name):
        inside = 'downsample.0' if match['branch'] == '1' else f'conv{" abc".index(match["branch"][1])}'
        return f'backbone.layer{int(match["stage"]) - 1}.{match["block"]}.{inside}', match['what']
    return None


def _norm_of(conv: str, kind: str) -> str:
    """``backbone.layer1.0.conv2`` -> ``backbone.layer1.0.bn2`` (or gn2); ``downsample.0`` -> ``downsample.1``."""
    if conv.endswith('downsample.0'):
        return f'{conv[:-1]}1'
    return re.sub(r'conv(\d)$', rf'{kind}\1', conv)


def _convolutions(state: dict[str, Tensor]) -> list[str]:
    return [key.removesuffix('.weight') for key in state if re.search(r'(conv\d|downsample\.0)\.weight$', key)]


def _fold_bias(conversion: Conversion, conv: str, name: str, bias: Tensor) -> None:
    """A convolution before a norm needs no bias: its shift goes into that of a scale-and-shift norm."""
    state, norm = conversion.state_dict, _norm_of(conv, 'bn')
    if f'{norm}.weight' not in state or f'{norm}.bias' not in state:
        raise InputError(f'{name}: a convolution with a bias, but without a batch norm that could take it')
    mean = f'{norm}.running_mean'
    if mean in state:
        state[mean] = state[mean] - bias
    else:
        state[f'{norm}.bias'] = state[f'{norm}.bias'] + state[f'{norm}.weight'] * bias
    conversion.drop(name, f'joined with the {"mean" if mean in state else "shift"} of the norm')


def _complete_norm(state: dict[str, Tensor], conv: str) -> str:
    """Checks that a convolution has its norm, adds the statistics of a scale-and-shift norm; returns the kind."""
    norms = {kind: _norm_of(conv, kind) for kind in ('gn', 'bn')}
    found = next((kind for kind, norm in norms.items() if f'{norm}.weight' in state), None)
    channels = state[f'{conv}.weight'].shape[0]
    if found is None:
        raise InputError(f'{conv}: its norm is missing')
    weight, bias = (state.get(f'{norms[found]}.{name}') for name in ('weight', 'bias'))
    for name, value in (('weight', weight), ('bias', bias)):
        if value is None or tuple(value.shape) != (channels,):
            shape = 'none' if value is None else list(value.shape)
            raise InputError(f'{norms[found]}.{name}: expected {[channels]}, found {shape}')
    if conv.endswith('downsample.0'):  # whose norm has one name in both kinds; the stem's says which
        found = 'gn' if 'backbone.gn1.weight' in state else 'bn'
    if found == 'bn':
        norm = norms['bn']
        state.setdefault(f'{norm}.running_mean', torch.zeros_like(weight))
        # the square root of the variance and torch's epsilon is 1
        state.setdefault(f'{norm}.running_var', torch.full_like(weight, 1 - _EPS))
        state.setdefault(f'{norm}.num_batches_tracked', torch.tensor(0))
    return {'gn': 'group norm', 'bn': 'batch norm'}[found]


def _depth(state: dict[str, Tensor]) -> int:
    """The depth of the ResNet, if all its blocks are there."""
    blocks = []
    for stage in range(1, 5):
        found = {int(match[1]) for key in state if (match := re.match(rf'backbone\.layer{stage}\.(\d+)\.', key))}
        if found != set(range(len(found))):
            raise InputError(f'res{stage + 1}: blocks are missing, found {sorted(found)}')
        blocks.append(len(found))
    if tuple(blocks) not in _BLOCKS:
        known = ', '.join(f'{list(counts)} (depth {depth})' for counts, depth in _BLOCKS.items())
        raise InputError(f'the stages have {blocks} blocks, expected {known}')
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            needed = [f'conv{index}' for index in (1, 2, 3)] + (['downsample.0'] if block == 0 else [])
            for conv in needed:
                if f'backbone.layer{stage}.{block}.{conv}.weight' not in state:
                    raise InputError(f'res{stage + 1}_{block}: the weight of {conv} is missing')
    return _BLOCKS[tuple(blocks)]


def _name(state: dict[str, Tensor], depth: int) -> str:
    """'ResNet-50', 'ResNeXt-101 32x8d'."""
    filters, width = state['backbone.layer1.0.conv2.weight'].shape[:2]
    return f'ResNet-{depth}' if filters == width else f'ResNeXt-{depth} {filters // width}x{width}d'
