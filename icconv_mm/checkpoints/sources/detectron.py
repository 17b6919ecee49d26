"""ImageNet weights released with Detectron: R-50, R-101, R-50-GN, R-101-GN, X-101-32x8d, X-101-64x4d, X-152-32x8d-IN5k;
and Caffe's ResNets as FPT's authors load them.

Caffe2 names its blobs ``res2_0_branch2a_w``: stage 2 (the first), block 0, the first convolution. Branch 1 is the
shortcut. Weights have torch's layout, and the first convolution reads BGR.

Batch norms are stored as scale and shift (``bn_s``, ``bn_b``), with the statistics folded in. They become batch norms
with neutral statistics, and must stay in evaluation mode (``norm_eval=True``), as in Detectron.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from icconv_mm.checkpoints.convert import Conversion, RenameRule, register_source
from icconv_mm.checkpoints.sources import depth_of, place_resnet
from icconv_mm.errors import InputError

_EPS = 1e-5  # of torch's batch norms
_BLOB = re.compile(
    r'(?:(?:res_)?conv1|res(?P<stage>[2-5])_(?P<block>\d+)_branch(?P<branch>1|2[abc]))_(?P<what>w|b|(?:bn|gn)_\w+)'
)
_CLASSIFIER = r'(?:fc\d{3,}|fc\d+k|pred|last_out_L\d+)'
_TRAINING = re.compile(r'.*_momentum|lr|iter|model_iter|weight_order|.*_optimizer_iteration')
_STAGES = ('res2', 'res3', 'res4', 'res5')
_OF_A_DETECTOR = r'(?:fpn_|conv_rpn|rpn_|cls_score|bbox_pred).*'
# ending of a norm's blob -> torch's parameter
_NORM = {'s': 'weight', 'gamma': 'weight', 'b': 'bias', 'beta': 'bias', 'bias': 'bias'}
_NORM |= {'rm': 'running_mean', 'running_mean': 'running_mean', 'riv': 'running_var', 'running_var': 'running_var'}
_KINDS = {'bn': 'batch norm', 'gn': 'group norm'}


@register_source('detectron')
def convert_detectron(conversion: Conversion, rules: Sequence[RenameRule] = ()) -> None:
    """Converts the blobs of a Detectron ImageNet model, as :func:`icconv_mm.checkpoints.read_detectron` reads them.

    Raises:
        InputError: The file is no Detectron ResNet, or blocks, norms or weights of it are missing.
    """
    for name in conversion.matching(_TRAINING):
        conversion.drop(name, 'state of the training')
    biases, kind = _place_backbone(conversion)
    state = conversion.state_dict
    depth = depth_of(state, _STAGES)
    for conv, name in biases.items():
        _fold_bias(conversion, conv, name)
    for key in [key for key in state if re.search(r'(?:conv\d|downsample\.0)\.weight$', key)]:
        _complete_norm(state, key.removesuffix('.weight'), kind)
    filters, width = state['backbone.layer1.0.conv2.weight'].shape[:2]
    name = f'ResNet-{depth}' if filters == width else f'ResNeXt-{depth} {filters // width}x{width}d'
    conversion.layout = f'Detectron {name}, {_KINDS[kind]}'
    if conversion.matching(_OF_A_DETECTOR):
        conversion.layout += ', a whole detector (its backbone alone is converted)'
    conversion.place_all(f'{_CLASSIFIER}_w', 'head.fc.weight')
    conversion.place_all(f'{_CLASSIFIER}_b', 'head.fc.bias')
    conversion.rename_left(rules)


@register_source('caffe')
def convert_caffe(conversion: Conversion, rules: Sequence[RenameRule] = ()) -> None:
    """Converts a ResNet of Caffe with torchvision's names and the statistics of its norms: ``resnet50_caffe.pth``.

    Raises:
        InputError: The file is no ResNet-50, 101 or 152, or weights of it are missing.
    """
    conversion.layout = f'Caffe ResNet-{place_resnet(conversion)}'
    conversion.rename_left(rules)


def _place_backbone(conversion: Conversion) -> tuple[dict[str, str], str]:
    """Places weights and norms; returns the blobs of biases by convolution, and the kind of the norms."""
    biases, kinds = {}, set()
    for name in conversion.matching(_BLOB):
        blob = _BLOB.fullmatch(name)
        conv, what = _conv_of(blob), blob['what']
        if what == 'b':
            biases[conv] = name
        elif what == 'w':
            conversion.place(name, f'{conv}.weight')
        elif what[3:] in _NORM:
            kinds.add(what[:2])
            conversion.place(name, f'{_norm_of(conv, what[:2])}.{_NORM[what[3:]]}')
    if 'backbone.conv1.weight' not in conversion.state_dict:
        raise InputError('no Detectron ResNet found: there is no blob conv1_w')
    if len(kinds) > 1:
        raise InputError(f'the file mixes norms: {", ".join(sorted(map(_KINDS.get, kinds)))}')
    return biases, kinds.pop() if kinds else 'bn'


def _conv_of(blob: re.Match) -> str:
    """Returns this package's name of the convolution that a blob, or the blob's norm, belongs to."""
    if blob['stage'] is None:
        return 'backbone.conv1'
    inside = 'downsample.0' if blob['branch'] == '1' else f'conv{" abc".index(blob["branch"][1])}'
    return f'backbone.layer{int(blob["stage"]) - 1}.{blob["block"]}.{inside}'


def _norm_of(conv: str, kind: str) -> str:
    """Returns a convolution's norm: ``layer1.0.conv2`` -> ``layer1.0.bn2`` or gn2, ``downsample.0`` -> ``.1``."""
    if conv.endswith('downsample.0'):
        return f'{conv[:-1]}1'
    return re.sub(r'conv(\d)$', rf'{kind}\1', conv)


def _fold_bias(conversion: Conversion, conv: str, name: str) -> None:
    """Folds a convolution's bias into the norm after it: its shift, or its running mean if it has one."""
    state, bias, norm = conversion.state_dict, conversion.left[name], _norm_of(conv, 'bn')
    if f'{norm}.weight' not in state or f'{norm}.bias' not in state:
        raise InputError(f'{name}: a convolution with a bias, but without a batch norm that could take it')
    mean = f'{norm}.running_mean'
    if mean in state:
        state[mean] = state[mean] - bias
    else:
        state[f'{norm}.bias'] = state[f'{norm}.bias'] + state[f'{norm}.weight'] * bias
    conversion.drop(name, f'joined with the {"mean" if mean in state else "shift"} of the norm')


def _complete_norm(state: dict[str, Tensor], conv: str, kind: str) -> None:
    """Checks that a convolution has its norm; adds the statistics of a scale-and-shift norm."""
    norm, channels = _norm_of(conv, kind), len(state[f'{conv}.weight'])
    if f'{norm}.weight' not in state:
        raise InputError(f'{conv}: its norm is missing: no {norm}.weight')
    for key in (f'{norm}.weight', f'{norm}.bias'):
        shape = list(state[key].shape) if key in state else 'none'
        if shape != [channels]:
            raise InputError(f'{key}: expected {[channels]}, found {shape}')
    if kind == 'bn':
        weight = state[f'{norm}.weight']
        state.setdefault(f'{norm}.running_mean', torch.zeros_like(weight))
        # the square root of the variance and torch's epsilon is 1
        state.setdefault(f'{norm}.running_var', torch.full_like(weight, 1 - _EPS))
        state.setdefault(f'{norm}.num_batches_tracked', torch.tensor(0))
