"""Synthetic checkpoints with the key lists of the frameworks that wrote the released files.

Every tensor is filled from its key, so that where a converted tensor comes from can be told by its values.
"""

import math
import re
import zlib

import numpy as np
import torch
from torch import nn

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def tensor(key: str, *shape: int) -> torch.Tensor:
    """Values that depend on the key alone; large tensors are one value, which costs no memory."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    if math.prod(shape) > 400_000:
        return torch.randn((), generator=generator).expand(shape)
    return torch.randn(shape, generator=generator)


def runs_of(channels: int, count: int = 12) -> list[int]:
    """``count`` runs, or fewer, that sum to ``channels``; twelve have another order by number than by alphabet."""
    count = min(count, channels)
    runs = [max(1, channels // (2 * count))] * (count - 1)
    return [channels - sum(runs), *runs]


def resnet(depth: int = 18, width: int = 64, sub_convolutions: bool = True) -> dict[str, torch.Tensor]:
    """An official IC-ResNet without its classifier; in basic blocks (depth 18) both convolutions are inceptions."""
    state: dict[str, torch.Tensor] = {}
    bottleneck = depth >= 50
    expansion = 4 if bottleneck else 1

    def conv(key, out_channels, in_channels, kernel):
        if kernel != 3 or not sub_convolutions:
            state[f'{key}.weight'] = tensor(key, out_channels, in_channels, kernel, kernel)
            return
        for index, channels in enumerate(runs_of(out_channels)):
            name = f'{key}.conv_list.{index}.weight'
            state[name] = tensor(name, channels, in_channels, kernel, kernel)

    def norm(key, channels):
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            state[f'{key}.{name}'] = tensor(f'{key}.{name}', channels)
        state[f'{key}.num_batches_tracked'] = torch.tensor(7)

    conv('conv1', width, 3, 7)
    norm('bn1', width)
    channels = width
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        planes = width * 2 ** (stage - 1)
        kernels = ((planes, 1), (planes, 3), (planes * 4, 1)) if bottleneck else ((planes, 3), (planes, 3))
        for block in range(blocks):
            key, inner = f'layer{stage}.{block}', channels
            for index, (out_channels, kernel) in enumerate(kernels, start=1):
                conv(f'{key}.conv{index}', out_channels, inner, kernel)
                norm(f'{key}.bn{index}', out_channels)
                inner = out_channels
            if channels != planes * expansion:
                conv(f'{key}.downsample.0', planes * expansion, channels, 1)
                norm(f'{key}.downsample.1', planes * expansion)
            channels = planes * expansion
    return state


def with_prefix(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f'{prefix}{key}': value for key, value in state.items()}


def classifier(depth: int = 18, width: int = 64, classes: int = 10) -> dict[str, torch.Tensor]:
    """A file of the kind ``*_imagenet_retrain/ckpt.pth.tar``."""
    features = width * 8 * (4 if depth >= 50 else 1)
    return {
        **resnet(depth, width),
        'fc.weight': tensor('fc.weight', classes, features),
        'fc.bias': tensor('fc.bias', classes),
    }


def bottom_up_pose(
    depth: int = 18,
    width: int = 64,
    filters: int = 256,
    sub_convolutions: bool = True,
    convs: int = 0,
    version: int = 0,
) -> dict[str, torch.Tensor]:
    """A ResNet, three deconvolutions, ``convs`` convolutions, one to 17 heatmaps and 17 tags; of mmpose 0.x or 1.x."""
    state = with_prefix('backbone.', resnet(depth, width, sub_convolutions))
    head = 'keypoint_head' if version == 0 else 'head'

    def norm(key):
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            value = tensor(f'{key}.{name}', filters)
            state[f'{key}.{name}'] = value.abs() if name == 'running_var' else value
        state[f'{key}.num_batches_tracked'] = torch.tensor(7)

    channels = width * 8 * (4 if depth >= 50 else 1)
    for layer in range(3):
        key = f'{head}.deconv_layers.{3 * layer}.weight'
        state[key] = tensor(key, channels, filters, 4, 4)
        norm(f'{head}.deconv_layers.{3 * layer + 1}')
        channels = filters
    sequence = f'{head}.final_layer' if version == 0 else f'{head}.conv_layers'
    for layer in range(convs):
        _linear(state, f'{sequence}.{3 * layer}', filters, filters, 3, 3)
        norm(f'{sequence}.{3 * layer + 1}')
    last = f'{head}.final_layer.{3 * convs}' if version == 0 and convs else f'{head}.final_layer'
    _linear(state, last, 34, filters, 1, 1)
    return state


def _linear(state: dict, key: str, *shape: int) -> None:
    state[f'{key}.weight'] = tensor(f'{key}.weight', *shape)
    state[f'{key}.bias'] = tensor(f'{key}.bias', shape[1] if '.upsample' in key else shape[0])


def detector(
    version: int,
    cascade: bool = False,
    mask: bool = False,
    depth: int = 18,
    width: int = 64,
    channels: int = 256,
    hidden: int = 1024,
    classes: int = 80,
) -> dict[str, torch.Tensor]:
    """Faster, Mask, Cascade or Cascade Mask R-CNN as mmdet 1.x (``version=1``) or 2.x (``version=2``) wrote it."""
    state = with_prefix('backbone.', resnet(depth, width))
    features = [width * 2**stage * (4 if depth >= 50 else 1) for stage in range(4)]
    for level, inputs in enumerate(features):
        _linear(state, f'neck.lateral_convs.{level}.conv', channels, inputs, 1, 1)
    for level in range(4):
        _linear(state, f'neck.fpn_convs.{level}.conv', channels, channels, 3, 3)
    _linear(state, 'rpn_head.rpn_conv', channels, channels, 3, 3)
    _linear(state, 'rpn_head.rpn_cls', 3, channels, 1, 1)
    _linear(state, 'rpn_head.rpn_reg', 12, channels, 1, 1)
    roi = '' if version == 1 else 'roi_head.'
    kinds = classes + 1 if version == 1 else classes  # of boxes and masks: 1.x has unused ones of the background
    for stage in ('.0', '.1', '.2') if cascade else ('',):
        box = f'{roi}bbox_head{stage}'
        _linear(state, f'{box}.shared_fcs.0', hidden, channels * 49)
        _linear(state, f'{box}.shared_fcs.1', hidden, hidden)
        _linear(state, f'{box}.fc_cls', classes + 1, hidden)
        _linear(state, f'{box}.fc_reg', 4 if cascade else 4 * kinds, hidden)
        if mask:
            head = f'{roi}mask_head{stage}'
            for index in range(4):
                _linear(state, f'{head}.convs.{index}.conv', channels, channels, 3, 3)
            _linear(state, f'{head}.upsample', channels, channels, 2, 2)
            _linear(state, f'{head}.conv_logits', kinds, channels, 1, 1)
    return state


def eod(
    cascade: bool = False,
    mask: bool = False,
    *,
    depth: int = 18,
    width: int = 64,
    channels: int = 256,
    hidden: int = 1024,
    classes: int = 80,
    softmax: bool = True,
    agnostic: bool = False,
    mask_rows: int = 80,
    stem: str = 'conv1',
) -> dict[str, torch.Tensor]:
    """Faster, Mask, Cascade or Cascade Mask R-CNN as EOD writes it.

    Args:
        stem: Its names: ``'conv1'``, ``'layer0'`` or ``'both'``.
    """
    state = with_prefix('backbone.', resnet(depth, width))
    first = {key: value for key, value in state.items() if re.match(r'backbone\.(conv1|bn1)\.', key)}
    if stem != 'conv1':
        state |= {re.sub('conv1', 'layer0.0', key).replace('bn1', 'layer0.1'): value for key, value in first.items()}
    if stem == 'layer0':
        state = {key: value for key, value in state.items() if key not in first}
    for level in range(4):
        inputs = width * 2**level * (4 if depth >= 50 else 1)
        _linear(state, f'neck.c{level + 2}_lateral', channels, inputs, 1, 1)
        _linear(state, f'neck.p{level + 2}_conv', channels, channels, 3, 3)
    _linear(state, 'roi_head.conv3x3', channels, channels, 3, 3)
    _linear(state, 'roi_head.conv_cls', 6 if softmax else 3, channels, 1, 1)
    _linear(state, 'roi_head.conv_loc', 12, channels, 1, 1)
    for stage in ('_list.0', '_list.1', '_list.2') if cascade else ('',):
        head = 'cascade_head' if cascade else 'bbox_head'
        _linear(state, f'{head}.fc6{stage}', hidden, channels * 49)
        _linear(state, f'{head}.fc7{stage}', hidden, hidden)
        _linear(state, f'{head}.fc_rcnn_cls{stage}', classes + 1, hidden)
        _linear(state, f'{head}.fc_rcnn_loc{stage}', 4 if cascade or agnostic else 4 * (classes + 1), hidden)
    if mask:
        for index in range(4):
            _linear(state, f'mask_head.head.{index}.0', channels, channels, 3, 3)
        _linear(state, 'mask_head.head.4', channels, channels, 2, 2)
        _linear(state, 'mask_head.predict', mask_rows, channels, 1, 1)
    return state


def retinanet(stacked_convs: int = 4, bare: bool = False, width: int = 64, channels: int = 256) -> dict:
    """RetinaNet of any mmdet version; ``bare`` as before 0.6, when the stacked convolutions were plain ones."""
    state = with_prefix('backbone.', resnet(18, width))
    for level in range(3):
        _linear(state, f'neck.lateral_convs.{level}.conv', channels, width * 2 ** (level + 1), 1, 1)
    for level in range(5):
        _linear(state, f'neck.fpn_convs.{level}.conv', channels, width * 8 if level == 3 else channels, 3, 3)
    for index in range(stacked_convs):
        for branch in ('cls', 'reg'):
            _linear(state, f'bbox_head.{branch}_convs.{index}' + ('' if bare else '.conv'), channels, channels, 3, 3)
    _linear(state, 'bbox_head.retina_cls', 9 * 80, channels, 3, 3)
    _linear(state, 'bbox_head.retina_reg', 9 * 4, channels, 3, 3)
    return state


def blob_name(key: str, norm: str) -> str | None:
    """Caffe2's name of a parameter of a ResNet; None for the statistics of norms, which it does not have."""
    module, _, parameter = key.rpartition('.')
    if parameter not in ('weight', 'bias'):
        return None
    if module == 'conv1':
        return 'conv1_w'
    if module in ('bn1', 'gn1'):
        return f'{"res_" if norm == "bn" else ""}conv1_{norm}_{parameter[0].replace("w", "s")}'
    stage, block, inside = re.fullmatch(r'layer(\d)\.(\d+)\.(.+)', module).groups()
    name = f'res{int(stage) + 1}_{block}_branch'
    name += '1' if inside.startswith('downsample') else '2' + ' abc'[int(inside[-1])]
    if inside.startswith('conv') or inside == 'downsample.0':
        return f'{name}_w'
    return f'{name}_{norm}_{"s" if parameter == "weight" else "b"}'


def detectron_blobs(net: nn.Module, norm: str = 'bn', classifier: str = 'pred') -> dict[str, np.ndarray]:
    """A ResNet of this package, and a classifier of random weights, under Caffe2's names."""
    blobs = {blob_name(key, norm): value.numpy().copy() for key, value in net.state_dict().items()}
    blobs.pop(None, None)
    blobs[f'{classifier}_w'] = np.random.randn(10, net.out_channels[-1]).astype(np.float32)
    blobs[f'{classifier}_b'] = np.random.randn(10).astype(np.float32)
    blobs['conv1_w_momentum'] = np.zeros_like(blobs['conv1_w'])
    blobs['lr'] = np.zeros(1, np.float32)
    return blobs


def pyconv(net: nn.Module, prefix: str = '') -> dict[str, torch.Tensor]:
    """The state dict of a backbone of this package under the names of PyConv's authors."""
    return {
        prefix + re.sub(r'pyconv_levels\.(\d)', lambda match: f'conv2_{int(match[1]) + 1}', key): value
        for key, value in net.state_dict().items()
    }


def ic_conv(net: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of a backbone of this package under the names of IC-Conv's authors: a weight for each run."""
    state = dict(net.state_dict())
    for name, module in net.named_modules():
        if pattern := getattr(module, 'pattern', None):
            pieces = state.pop(f'{name}.weight').split([channels for channels, _, _ in pattern])
            state |= {f'{name}.conv_list.{index}.weight': piece for index, piece in enumerate(pieces)}
    return state
