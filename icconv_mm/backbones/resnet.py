"""The ResNet skeleton that the backbones of this package share.

Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385, with torchvision's keys and the options
of mmdet's ResNet. A variant overrides the ``make_*`` method of the part in which it differs.
"""

from collections.abc import Sequence

import torch.utils.checkpoint
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from icconv_mm.backbones.checkpoint_keys import keep_backbone_keys
from icconv_mm.errors import naming

# input pixels per pixel of the last stage -> (strides, dilations) of the stages
OUTPUT_STRIDES = {
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    32: ((1, 2, 2, 2), (1, 1, 1, 1)),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and 34)."""

    expansion = 1

    def __init__(self, net: 'ResNet', in_channels: int, planes: int, stage: int, stride: int, dilation: int):
        super().__init__()
        self.with_cp = net.with_cp
        self.conv1 = net.make_conv3x3(in_channels, planes, stage, stride, dilation)
        self.norm1_name = net.add_norm(self, planes, 1)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = net.make_conv3x3(planes, planes, stage, 1, dilation)
        self.norm2_name = net.add_norm(self, planes, 2)
        self.last_norm_name = self.norm2_name
        self.relu = nn.ReLU(inplace=True)
        self.downsample = net.make_downsample(in_channels, planes * self.expansion, stage, stride)

    def forward(self, x: Tensor) -> Tensor:
        return _run_block(self, x)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu1(getattr(self, self.norm1_name)(self.conv1(x)))
        return getattr(self, self.norm2_name)(self.conv2(x))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut (ResNet-50 and deeper, ResNeXt)."""

    expansion = 4

    def __init__(self, net: 'ResNet', in_channels: int, planes: int, stage: int, stride: int, dilation: int):
        super().__init__()
        self.with_cp = net.with_cp
        width, out_channels = net.block_width(planes), planes * self.expansion
        first, second = (stride, 1) if net.style == 'caffe' else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, stride=first, bias=False)
        self.norm1_name = net.add_norm(self, width, 1)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = net.make_conv3x3(width, width, stage, second, dilation)
        self.norm2_name = net.add_norm(self, width, 2)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.norm3_name = net.add_norm(self, out_channels, 3)
        self.last_norm_name = self.norm3_name
        self.relu = nn.ReLU(inplace=True)
        self.downsample = net.make_downsample(in_channels, out_channels, stage, stride)

    def forward(self, x: Tensor) -> Tensor:
        return _run_block(self, x)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu1(getattr(self, self.norm1_name)(self.conv1(x)))
        x = self.relu2(getattr(self, self.norm2_name)(self.conv2(x)))
        return getattr(self, self.norm3_name)(self.conv3(x))


def _run_block(block: nn.Module, x: Tensor) -> Tensor:
    def inner(x):
        shortcut = x if block.downsample is None else block.downsample(x)
        return block.residual(x) + shortcut

    if block.with_cp and x.requires_grad:
        return block.relu(torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=False))
    return block.relu(inner(x))


class ResNet(BaseModule):
    """A ResNet or ResNeXt as a feature extractor.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: Channels of the image.
        stem_channels: Channels after the stem; ``base_channels`` by default.
        base_channels: Channels of the first stage (before the expansion of a bottleneck).
        num_stages: How many stages there are, 1 to 4.
        strides: Of each stage.
        dilations: Of each stage.
        contract_dilation: Whether the first block of a dilated stage has half its dilation (as in mmseg).
        out_indices: The stages whose outputs are returned.
        style: Where the stride of a bottleneck is: 'pytorch', on the 3x3 convolution; 'caffe', on the first 1x1 one,
            as in the first ResNets and their Caffe weights.
        deep_stem: Three 3x3 convolutions instead of one 7x7 (keys ``stem.N`` as in mmdet).
        avg_down: Average pooling before the 1x1 convolution of a strided shortcut.
        frozen_stages: The stem and that many stages do not learn; -1 freezes nothing.
        norm_cfg: Of the norm layers: BN, SyncBN, GN, ...
        norm_eval: Whether batch norms keep their statistics while training.
        with_cp: Whether blocks recompute their activations in the backward pass to save memory.
        zero_init_residual: Whether the last norm of every block starts at zero, unless weights are loaded.
        groups: Of the 3x3 convolutions of bottlenecks.
        base_width: Channels of a group in the first stage (ResNeXt-101 32x4d: 4); ``base_channels`` by default.
        output_stride: 32, 16 or 8: instead of ``strides`` and ``dilations``, those of a network for dense prediction,
            whose last stages are dilated instead of strided.
        init_cfg: mmengine initialisation, e.g. ``dict(type='Pretrained', checkpoint='torchvision://resnet50')``.
            Checkpoints of dense networks in the key layouts of torchvision, mmdet and mmpretrain load as they are.

    Raises:
        ValueError: If an argument is out of range; names it and what was expected.
    """

    # depth -> (block, number of blocks in each stage)
    arch_settings = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
    }

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int | None = None,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        contract_dilation: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        style: str = 'pytorch',
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        groups: int = 1,
        base_width: int | None = None,
        output_stride: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg or self.default_init_cfg())
        self.depth, self.style = depth, style
        self.base_channels = base_channels
        self.strides, self.dilations, self.contract_dilation = tuple(strides), tuple(dilations), contract_dilation
        if output_stride is not None:
            self._set_output_stride(output_stride, num_stages)
        self.out_indices = tuple(out_indices)
        self.deep_stem, self.avg_down = deep_stem, avg_down
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        self.norm_cfg = norm_cfg or {'type': 'BN', 'requires_grad': True}
        self.with_cp, self.zero_init_residual = with_cp, zero_init_residual
        self.groups, self.base_width = groups, base_width
        self._check(num_stages)

        self.make_stem(in_channels, stem_channels or base_channels)
        self.out_channels: list[int] = []  # of each stage
        channels = stem_channels or base_channels
        for stage in range(num_stages):
            self.add_module(f'layer{stage + 1}', self.make_stage(stage, channels))
            channels = self.out_channels[-1]
        self._register_load_state_dict_pre_hook(keep_backbone_keys, with_module=True)
        self._freeze()

    def _set_output_stride(self, output_stride: int, num_stages: int) -> None:
        if output_stride not in OUTPUT_STRIDES:
            raise ValueError(f'output_stride must be one of {list(OUTPUT_STRIDES)}, got {output_stride}')
        given = self.strides, self.dilations
        if given != ((1, 2, 2, 2), (1, 1, 1, 1)) or num_stages != 4:
            raise ValueError(
                f'output_stride={output_stride} sets strides and dilations of four stages: leave out '
                f'strides={given[0]}, dilations={given[1]} and num_stages={num_stages}'
            )
        self.strides, self.dilations = OUTPUT_STRIDES[output_stride]

    def _check(self, num_stages: int) -> None:
        if self.depth not in self.arch_settings:
            raise ValueError(f'depth must be one of {sorted(self.arch_settings)}, got {self.depth}')
        if not 1 <= num_stages <= 4:
            raise ValueError(f'num_stages must be 1 to 4, got {num_stages}')
        for name in ('strides', 'dilations'):
            if len(getattr(self, name)) != num_stages:
                raise ValueError(f'{name} must have {num_stages} entries (num_stages), got {getattr(self, name)}')
        if not self.out_indices or not all(0 <= i < num_stages for i in self.out_indices):
            raise ValueError(f'out_indices must be stages 0 to {num_stages - 1}, got {self.out_indices}')
        if not -1 <= self.frozen_stages <= num_stages:
            raise ValueError(f'frozen_stages must be -1 to {num_stages}, got {self.frozen_stages}')
        if self.style not in ('pytorch', 'caffe'):
            raise ValueError(f"style must be 'pytorch' or 'caffe', got {self.style!r}")
        if self.arch_settings[self.depth][0] is BasicBlock and (self.groups, self.base_width) != (1, None):
            raise ValueError(f'groups and base_width are for bottlenecks, which depth {self.depth} does not have')

    # --- the parts; a variant overrides those in which it differs

    def make_stem(self, in_channels: int, channels: int) -> None:
        """Registers the modules of :meth:`stem_forward`."""
        if self.deep_stem:
            half, layers = channels // 2, []
            for i, (inside, outside) in enumerate(((in_channels, half), (half, half), (half, channels))):
                layers += [
                    nn.Conv2d(inside, outside, 3, stride=2 if i == 0 else 1, padding=1, bias=False),
                    build_norm_layer(self.norm_cfg, outside)[1],
                    nn.ReLU(inplace=True),
                ]
            self.stem = nn.Sequential(*layers)
        else:
            self.conv1 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
            self.norm1_name = self.add_norm(self, channels, 1)
            self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

    def stem_forward(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` -> ``[N, stem_channels, H / 4, W / 4]``."""
        x = self.stem(x) if self.deep_stem else self.relu(getattr(self, self.norm1_name)(self.conv1(x)))
        return self.maxpool(x)

    def stem_modules(self) -> list[nn.Module]:
        """What ``frozen_stages >= 0`` freezes."""
        return [self.stem] if self.deep_stem else [self.conv1, getattr(self, self.norm1_name)]

    def make_stage(self, stage: int, in_channels: int) -> nn.Sequential:
        """The blocks of a stage; appends its output channels to ``out_channels``."""
        block, depths = self.arch_settings[self.depth]
        planes, dilation = self.base_channels * 2**stage, self.dilations[stage]
        first = dilation // 2 if self.contract_dilation and dilation > 1 else dilation
        out_channels = planes * block.expansion
        blocks = [block(self, in_channels, planes, stage, self.strides[stage], first)]
        blocks += [block(self, out_channels, planes, stage, 1, dilation) for _ in range(1, depths[stage])]
        self.out_channels.append(out_channels)
        return nn.Sequential(*blocks)

    def block_width(self, planes: int) -> int:
        """Channels of the 3x3 convolution of a bottleneck."""
        return planes * (self.base_width or self.base_channels) // self.base_channels * self.groups

    def make_conv3x3(self, in_channels: int, out_channels: int, stage: int, stride: int, dilation: int) -> nn.Module:
        """The 3x3 convolution of a block."""
        return nn.Conv2d(
            in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, groups=self.groups, bias=False
        )

    def make_downsample(self, in_channels: int, out_channels: int, stage: int, stride: int) -> nn.Sequential | None:
        """The shortcut of a block, or None where it is the identity."""
        if stride == 1 and in_channels == out_channels:
            return None
        pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if self.avg_down else []
        conv = nn.Conv2d(in_channels, out_channels, 1, stride=1 if self.avg_down else stride, bias=False)
        return nn.Sequential(*pool, conv, build_norm_layer(self.norm_cfg, out_channels)[1])

    def add_norm(self, module: nn.Module, channels: int, number: int) -> str:
        """Registers a norm layer in ``module`` under the name that its kind has ('bn1', 'gn1') and returns that."""
        name, layer = build_norm_layer(self.norm_cfg, channels, postfix=number)
        module.add_module(name, layer)
        return name

    # --- what torch and mmengine call

    @staticmethod
    def default_init_cfg() -> list[dict]:
        return [
            {'type': 'Kaiming', 'layer': 'Conv2d'},
            {'type': 'Constant', 'val': 1, 'layer': ['_BatchNorm', 'GroupNorm']},
        ]

    def init_weights(self) -> None:
        initialised = self.is_init
        cfgs = self.init_cfg if isinstance(self.init_cfg, (list, tuple)) else [self.init_cfg]
        files = [str(cfg.get('checkpoint')) for cfg in cfgs if cfg['type'] == 'Pretrained']
        with naming(', '.join(files)):
            super().init_weights()
        if self.zero_init_residual and not initialised and not files:
            for module in self.modules():
                if name := getattr(module, 'last_norm_name', None):
                    nn.init.zeros_(getattr(module, name).weight)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``[N, in_channels, H, W]`` -> the feature maps of the stages ``out_indices``."""
        x = self.stem_forward(x)
        outputs = []
        for stage in range(len(self.out_channels)):
            x = getattr(self, f'layer{stage + 1}')(x)
            if stage in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def train(self, mode: bool = True) -> 'ResNet':
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        frozen = self.stem_modules() if self.frozen_stages >= 0 else []
        frozen += [getattr(self, f'layer{stage}') for stage in range(1, self.frozen_stages + 1)]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)
