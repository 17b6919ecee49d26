"""The ResNet skeleton that the backbones of this package share.

Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385, with torchvision's keys and the options
of the ResNets of mmdet, mmseg, mmpose and mmpretrain. A variant overrides the methods of
the parts that differ, among those under "the parts".
"""

import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from icconv_mm.arguments import check_all_positive, check_positive, check_probability, without_none
from icconv_mm.backbones.blocks import BasicBlock, Block, Bottleneck, Stage, add_norm, norm_property
from icconv_mm.backbones.checkpoint_keys import as_part, keep_backbone_keys
from icconv_mm.compat import MODELS, BaseModule, build_conv_layer, build_norm_layer, library_default
from icconv_mm.errors import InputError, InputTypeError, naming
from icconv_mm.layers.fast_eval import Shortcut, convolve, norm_relu, set_norms_eval
from icconv_mm.layers.memory_format import entering, leaving, set_memory_format
from icconv_mm.torch_private import register_load_state_dict_pre_hook

# defaults of each stage
STRIDES = (1, 2, 2, 2)
DILATIONS = (1, 1, 1, 1)

# input pixels per pixel of the last stage -> (strides, dilations) of the stages
OUTPUT_STRIDES = {
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    32: (STRIDES, DILATIONS),
}
DEFAULT_INIT = [
    {'type': 'Kaiming', 'layer': 'Conv2d'},
    {'type': 'Constant', 'val': 1, 'layer': ['_BatchNorm', 'GroupNorm']},
]


# arguments that are positive integers, or lists of them; None for a default
_POSITIVE = ('in_channels', 'stem_channels', 'base_channels', 'expansion', 'groups', 'base_width')
_ALL_POSITIVE = ('strides', 'dilations', 'multi_grid')


def pretrained_cfg(pretrained: str | Path | None, init_cfg: dict | list[dict] | None) -> dict | list[dict] | None:
    """Returns the ``init_cfg`` of a network from ``init_cfg`` or the deprecated ``pretrained``."""
    if pretrained is None:
        return init_cfg
    if not isinstance(pretrained, (str, Path)):
        raise InputTypeError(f'pretrained must be a path, a URL or None, got {pretrained!r}')
    if init_cfg:
        raise InputError(
            f'pretrained={str(pretrained)!r} and init_cfg={init_cfg} both say where weights come from: give one'
        )
    # a UserWarning, as in the libraries: Python hides deprecations outside of __main__
    warnings.warn('DeprecationWarning: pretrained is deprecated, please use "init_cfg" instead', stacklevel=3)
    return {'type': 'Pretrained', 'checkpoint': str(pretrained)}


@MODELS.register_module()
class ResNet(BaseModule):
    """A ResNet or ResNeXt as a feature extractor.

    While a config of a library is built, the defaults of ``stem_channels``, ``out_indices`` and ``norm_eval`` are those
    of its own ResNet (:func:`icconv_mm.compat.library_default`).

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: Channels of the image.
        stem_channels: Channels after the stem; ``base_channels`` by default, in configs of mmseg, mmpose and mmpretrain
            64.
        base_channels: Channels of the first stage (before the expansion of a bottleneck).
        expansion: Output channels of a block over its inner channels: by default 4 for a bottleneck, 1 for a basic
            block.
        num_stages: Number of stages, 1 to 4; 4 by default. Arguments with an entry per stage have as many entries.
        strides: Stride of each stage; (1, 2, 2, 2) by default.
        dilations: Dilation of the 3x3 convolutions of each stage; all 1 by default.
        contract_dilation: Whether the first block of a dilated stage has half its dilation (as in mmseg).
        multi_grid: The dilations of the blocks of the last stage, one each (as in mmseg).
        out_indices: The stages whose outputs are returned; by default all, in configs of mmpose and mmpretrain the last
            one.
        style: Convolution of a bottleneck with the stride: 'pytorch', the 3x3 one; 'caffe', the first 1x1 one,
            as in the first ResNets and their Caffe weights.
        deep_stem: Three 3x3 convolutions instead of one 7x7 (keys ``stem.N`` as in mmdet).
        avg_down: Average pooling before the 1x1 convolution of a strided shortcut.
        frozen_stages: Number of frozen stages, with the stem; -1 freezes nothing.
        conv_cfg: Config of the convolutions; ``dict(type='ConvWS')`` standardises their weights.
        norm_cfg: Config of the norm layers: BN, SyncBN, GN, ...
        norm_eval: Whether batch norms keep their statistics while training; False by default, True in configs of mmdet.
        dcn: Config of deformable 3x3 convolutions, ``dict(type='DCNv2', deform_groups=1)``; None for none.
        stage_with_dcn: For each stage, whether its 3x3 convolutions are deformable; none is by default.
        plugins: Layers within blocks, ``dict(cfg=dict(type='ContextBlock', ratio=1 / 4), position='after_conv3',
            stages=(False, True, True, True))`` each.
        with_cp: Recompute activations in the backward pass to save memory: all of a block (True), or only those of
            batch norm and ReLU ('norms'), which costs little time and needs ``nn.BatchNorm2d``.
        zero_init_residual: Whether the last norm of every block starts at zero, unless weights are loaded.
        drop_path_rate: Stochastic depth: probability of skipping the last block of four stages, at least 0 and below 1;
            lower for blocks before it.
        groups: Groups of the 3x3 convolutions of bottlenecks; 1 by default.
        base_width: Channels of a group in the first stage (ResNeXt-101 32x4d: 4); ``base_channels`` by default.
        width_per_group: ``base_width`` by mmpretrain's name.
        output_stride: 32, 16 or 8, for dense prediction: dilates the last stages instead of striding them. Use it
            instead of ``strides`` and ``dilations``.
        memory_format: Memory format of the maps inside: 'auto' (channels_last on the CPU), 'channels_last' or
            'preserve', see :func:`icconv_mm.layers.set_memory_format`. They leave in the format of the image.
        pretrained: A checkpoint (deprecated; use ``init_cfg``).
        adapt_stem: Whether weights of a stem for images of other channels are adapted to ``in_channels``, as timm does:
            repeated in turn and scaled, for one channel summed; False refuses them.
        init_cfg: mmengine initialisation, e.g. ``dict(type='Pretrained', checkpoint='torchvision://resnet50')``.
            Checkpoints of dense networks in the key layouts of torchvision, mmdet and mmpretrain load unchanged.
        **unknown: Options of other networks, which are refused.

    Raises:
        InputError: If an argument is out of range; the message names it and what was expected.
        InputTypeError: If ``pretrained`` is neither a path nor a URL, or an option is unknown.

    Example:
        >>> net = ResNet(50, output_stride=8, out_indices=(3,))
        >>> net(torch.randn(1, 3, 64, 64))[0].shape
        torch.Size([1, 2048, 8, 8])
    """

    # further options whose default follows the library: our own, and the library's class
    library_options: dict[str, tuple[Any, str]] = {}
    # depth -> (block, number of blocks in each stage)
    arch_settings = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
    }
    enters_and_leaves = True  # maps(): see icconv_mm.layers.memory_format
    output_type: type = tuple  # of forward(); a list for those who know timm's networks
    stem_stride = 4  # pixels of the image per pixel of the first stage's input, along each axis
    norm1 = norm_property(1)

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int | None = None,
        base_channels: int = 64,
        expansion: int | None = None,
        num_stages: int = 4,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        contract_dilation: bool = False,
        multi_grid: Sequence[int] | None = None,
        out_indices: Sequence[int] | None = None,
        style: str = 'pytorch',
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        norm_eval: bool | None = None,
        dcn: dict | None = None,
        stage_with_dcn: Sequence[bool] | None = None,
        plugins: Sequence[dict] | None = None,
        with_cp: bool | Literal['norms'] = False,
        zero_init_residual: bool = True,
        drop_path_rate: float = 0.0,
        groups: int = 1,
        base_width: int | None = None,
        width_per_group: int | None = None,
        output_stride: int | None = None,
        memory_format: str = 'auto',
        pretrained: str | Path | None = None,
        adapt_stem: bool = False,
        init_cfg: dict | list[dict] | None = None,
        **unknown,
    ):
        if unknown:  # options of a ResNeSt, a TridentNet, ... of which only the type was replaced
            raise InputTypeError(
                f'{type(self).__name__} got an unexpected keyword argument {next(iter(unknown))!r}; for an option of '
                'another network, convert that network with ICBackbone or PyConvBackbone'
            )
        check_positive(num_stages=num_stages)
        super().__init__(pretrained_cfg(pretrained, init_cfg) or DEFAULT_INIT)
        self.depth, self.num_stages, self.style = depth, num_stages, style
        if stem_channels is None:
            stem_channels = library_default('stem_channels', base_channels)
        self.in_channels, self.stem_channels, self.adapt_stem = in_channels, stem_channels, adapt_stem
        self.base_channels, self.expansion = base_channels, expansion
        self.strides = STRIDES[:num_stages] if strides is None else _tuple_of(strides)
        self.dilations = DILATIONS[:num_stages] if dilations is None else _tuple_of(dilations)
        self.contract_dilation, self.multi_grid = contract_dilation, _tuple_of(multi_grid)
        if output_stride is not None:
            self._set_output_stride(output_stride)
        if out_indices is None:
            returns_one = len(library_default('out_indices', range(num_stages))) == 1
            out_indices = range(num_stages)[-1 if returns_one else 0 :]
        self.out_indices = _tuple_of(out_indices)
        self.deep_stem, self.avg_down = deep_stem, avg_down
        self.frozen_stages = frozen_stages
        self.norm_eval = library_default('norm_eval', False) if norm_eval is None else norm_eval
        self.conv_cfg, self.norm_cfg = conv_cfg, norm_cfg or {'type': 'BN', 'requires_grad': True}
        self.stage_with_dcn = (False,) * num_stages if stage_with_dcn is None else _tuple_of(stage_with_dcn)
        self.dcn, self.plugins = dcn, plugins or ()
        self.with_cp, self.zero_init_residual, self.drop_path_rate = with_cp, zero_init_residual, drop_path_rate
        self.groups, self.base_width = groups, _width(base_width, width_per_group)
        self.check_arguments(num_stages)

        self.make_stem(in_channels, stem_channels)
        growth = self.expansion or self.block_type().expansion
        self.out_channels = [base_channels * 2**stage * growth for stage in range(num_stages)]
        channels = stem_channels
        for stage, out_channels in enumerate(self.out_channels):
            self.add_module(f'layer{stage + 1}', self.make_stage(stage, channels, out_channels))
            channels = out_channels
        register_load_state_dict_pre_hook(self, keep_backbone_keys)
        set_memory_format(self, memory_format)
        self._freeze_stages()

    def _set_output_stride(self, output_stride: int) -> None:
        if output_stride not in list(OUTPUT_STRIDES):
            raise InputError(f'output_stride must be one of {list(OUTPUT_STRIDES)}, got {output_stride!r}')
        stages = self.num_stages
        usual = {'strides': STRIDES[:stages], 'dilations': DILATIONS[:stages], 'num_stages': 4}
        if other := [name for name, value in usual.items() if getattr(self, name) != value]:
            shown = ' and '.join(f'{name}={getattr(self, name)}' for name in other)
            raise InputError(
                f'output_stride={output_stride} sets strides and dilations of four stages: leave out {shown}'
            )
        self.strides, self.dilations = OUTPUT_STRIDES[output_stride]

    # --- the parts; a variant overrides those that differ

    def check_arguments(self, num_stages: int) -> None:
        """Raises InputError for an argument out of range, before anything is built."""
        allowed = {
            'depth': sorted(self.arch_settings),
            'num_stages': range(1, 5),
            'frozen_stages': range(-1, num_stages + 1),
            'style': ['pytorch', 'caffe'],
            'with_cp': [False, True, 'norms'],
        }
        for name, values in allowed.items():
            value, is_range = getattr(self, name), isinstance(values, range)
            if value not in values or (is_range and not isinstance(value, Integral)):
                expected = f'{values[0]} to {values[-1]}' if is_range else f'one of {values}'
                raise InputError(f'{name} must be {expected}, got {value!r}')
        for name in ('strides', 'dilations', *(['stage_with_dcn'] if self.dcn else [])):
            if not isinstance(value := getattr(self, name), tuple) or len(value) != num_stages:
                raise InputError(f'{name} must have {num_stages} entries (num_stages), got {value!r}')
        check_positive(**without_none(**{name: getattr(self, name) for name in _POSITIVE}))
        check_all_positive(**without_none(**{name: getattr(self, name) for name in _ALL_POSITIVE}))
        self._check_plugins(num_stages)
        stages, chosen = range(num_stages), self.out_indices
        if not (isinstance(chosen, tuple) and chosen and all(stage in stages for stage in chosen)):
            raise InputError(f'out_indices must be a list of stages, 0 to {num_stages - 1}, got {chosen!r}')
        check_probability(drop_path_rate=self.drop_path_rate)
        block, depths = self.arch_settings[self.depth]
        if block is BasicBlock and (self.groups, self.base_width) != (1, None):
            raise InputError(f'groups and base_width are for bottlenecks, which depth {self.depth} does not have')
        if self.multi_grid is not None and len(self.multi_grid) != depths[num_stages - 1]:
            last = f'the {depths[num_stages - 1]} blocks of the last stage'
            raise InputError(f'multi_grid must have one entry for each of {last}, got {self.multi_grid}')

    def _check_plugins(self, num_stages: int) -> None:
        positions = [f'after_conv{number + 1}' for number in range(len(self.block_type().kernel_sizes))]
        if not isinstance(self.plugins, Sequence):
            raise InputError(f'plugins must be a list of dicts, got {self.plugins!r}')
        for plugin in self.plugins:
            if not (isinstance(plugin, dict) and isinstance(plugin.get('cfg'), dict)):
                raise InputError(f"a plugin must be dict(cfg=dict(type=...), position='after_conv2'), got {plugin!r}")
            stages = plugin.get('stages') or self.strides
            if not isinstance(stages, Sequence) or len(stages) != num_stages:
                raise InputError(f'stages of a plugin must have {num_stages} entries (num_stages), got {stages}')
            if (position := plugin.get('position')) not in positions:
                raise InputError(f'position of a plugin must be one of {positions}, got {position!r}')

    def make_stem(self, in_channels: int, channels: int) -> None:
        """Builds the modules of :meth:`stem_forward`."""
        if self.deep_stem:
            half, layers = channels // 2, []
            for inside, outside, stride in ((in_channels, half, 2), (half, half, 1), (half, channels, 1)):
                conv = build_conv_layer(self.conv_cfg, inside, outside, 3, stride, padding=1, bias=False)
                layers += [conv, build_norm_layer(self.norm_cfg, outside)[1], nn.ReLU(inplace=True)]
            self.stem = nn.Sequential(*layers)
        else:
            self.conv1 = build_conv_layer(self.conv_cfg, in_channels, channels, 7, stride=2, padding=3, bias=False)
            add_norm(self, self.norm_cfg, channels, 1)
            self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

    @property
    def stem(self) -> nn.Module:
        """Returns the layers before the max pooling, under the name of mmseg's ICNet."""
        return self._modules.get('stem') or nn.Sequential(self.conv1, self.norm1, self.relu)

    def stem_forward(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` -> ``[N, stem_channels, H / 4, W / 4]``; of a variant H / ``stem_stride``."""
        x = self.stem(x) if self.deep_stem else norm_relu(convolve(x, self.conv1), self.conv1, self.norm1, self.relu)
        return self.maxpool(x)

    def block_type(self) -> type[Block]:
        """Returns the class of the blocks."""
        return self.arch_settings[self.depth][0]

    def stage_stride(self, stage: int) -> int:
        """Returns the stride of the first block of a stage."""
        return self.strides[stage]

    def stage_with_cp(self, stage: int) -> bool | Literal['norms']:
        """Returns which activations the blocks of a stage recompute."""
        return self.with_cp

    def block_options(self, stage: int, number: int) -> dict[str, Any]:
        """Returns arguments of block ``number`` of a stage besides those of :class:`Block`; none by default."""
        return {}

    def make_stage(self, stage: int, in_channels: int, out_channels: int) -> nn.Sequential:
        """Builds the blocks of a stage."""
        block, depths = self.block_type(), self.arch_settings[self.depth][1]
        before, last = sum(depths[:stage]), sum(depths) - 1
        dilations = [self.dilations[stage]] * depths[stage]
        if self.multi_grid is not None and stage == len(self.strides) - 1:
            dilations = self.multi_grid
        elif self.contract_dilation:
            dilations[0] = max(1, dilations[0] // 2)
        blocks = []
        for number, dilation in enumerate(dilations):
            stride = self.stage_stride(stage) if number == 0 else 1
            layer = block(
                in_channels,
                self.block_width(self.base_channels * 2**stage),
                out_channels,
                conv1x1=self.make_conv1x1,
                conv3x3=partial(self.make_conv3x3, stage=stage, dilation=dilation),
                norm_cfg=self.norm_cfg,
                stride=stride,
                style=self.style,
                downsample=self.make_downsample(in_channels, out_channels, stage, stride),
                plugins=[plugin for plugin in self.plugins if (plugin.get('stages') or [True] * 4)[stage]],
                drop_path=self.drop_path_rate * (before + number) / last,
                with_cp=self.stage_with_cp(stage),
                **self.block_options(stage, number),
            )
            blocks.append(layer)
            in_channels = out_channels
        return Stage(*blocks)

    def block_width(self, planes: int) -> int:
        """Returns the channels of the 3x3 convolution of a bottleneck."""
        return planes * (self.base_width or self.base_channels) // self.base_channels * self.groups

    def make_conv1x1(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        """Returns a 1x1 convolution of a block or a shortcut."""
        return build_conv_layer(self.conv_cfg, in_channels, out_channels, 1, stride=stride, bias=False)

    def make_conv3x3(self, in_channels: int, out_channels: int, stride: int, stage: int, dilation: int) -> nn.Module:
        """Returns a 3x3 convolution of a block; deformable if the stage is."""
        cfg = self.conv_cfg
        if self.dcn and self.stage_with_dcn[stage]:
            dcn = {key: value for key, value in self.dcn.items() if key != 'fallback_on_stride'}
            cfg = cfg if self.dcn.get('fallback_on_stride') and stride > 1 else dcn
        return build_conv_layer(
            cfg,
            in_channels,
            out_channels,
            3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            groups=self.groups,
            bias=False,
        )

    def make_downsample(self, in_channels: int, out_channels: int, stage: int, stride: int) -> nn.Sequential | None:
        """Returns the shortcut of a block, or None for the identity."""
        if stride == 1 and in_channels == out_channels:
            return None
        pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if self.avg_down else []
        conv = self.make_conv1x1(in_channels, out_channels, 1 if self.avg_down else stride)
        return Shortcut(*pool, conv, build_norm_layer(self.norm_cfg, out_channels)[1])

    # --- called by torch and mmengine

    def init_weights(self) -> None:
        initialized = self.is_init
        cfgs = self.init_cfg if isinstance(self.init_cfg, (list, tuple)) else [self.init_cfg]
        files = [str(cfg.get('checkpoint')) for cfg in cfgs if cfg['type'] == 'Pretrained']
        with naming(', '.join(files)):
            super().init_weights()
        if self.zero_init_residual and not initialized and not files:
            for module in self.modules():
                norm = getattr(module, getattr(module, 'last_norm_name', None) or '', None)
                if getattr(norm, 'weight', None) is not None:  # mmcv's IN has none
                    nn.init.zeros_(norm.weight)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> tuple[list[str], list[str]]:
        """Loads the weights of this network, or of a dense one in any library's layout, with or without a classifier.

        Args:
            state_dict: The weights by name.
            strict: Whether all weights of the network and of the file must match. mmengine's loading (``init_cfg``,
                ``load_checkpoint``) does not call this method and is always strict.
            assign: Whether the tensors themselves become the network's, as in ``nn.Module``.

        Returns:
            Missing and unexpected keys, ``missing_keys`` and ``unexpected_keys`` of a named tuple.

        Raises:
            InputError: If the file is an official IC-Conv or PyConv checkpoint, or of an SE-ResNet.
            ArchitectureMismatchError: If a weight has another shape or kind, or with ``strict`` is unmatched; the
                message lists the keys. Nothing is loaded then.
        """
        return super().load_state_dict(state_dict if strict else as_part(state_dict), strict, assign)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``[N, in_channels, H, W]`` -> the feature maps of the stages ``out_indices``."""
        return self.output_type(self.maps(x, self.out_indices))

    def maps(self, x: Tensor, stages: Collection[int]) -> tuple[Tensor, ...]:
        """``[N, in_channels, H, W]`` -> the feature maps of some stages; later stages do not run."""
        given = x
        x = self.stem_forward(entering(x, self))
        outputs = []
        for stage in range(max(stages) + 1):
            x = getattr(self, f'layer{stage + 1}')(x)
            if stage in stages:
                outputs.append(leaving(x, given))
        return tuple(outputs)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Makes all blocks recompute activations in the backward pass, or restores the constructor's setting."""
        for stage, name in enumerate(self.res_layers):
            for block in getattr(self, name):
                block.with_cp = enable or self.stage_with_cp(stage)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Returns the layer of a parameter and the number of layers, for layer-wise learning rate decay (mmpretrain).

        The stem is layer 0, stages 1 and 4 are a layer each, stages 2 and 3 one for every two and three blocks (four
        and four of ResNet-152); a parameter outside ``prefix`` belongs to a head and comes last.
        """
        _, second, third, _ = self.arch_settings[self.depth][1]
        every = (4, 4) if second == 8 else (2, 3)
        begin3 = 2 - (-second // every[0])
        last = begin3 - (-third // every[1])
        if not param_name.startswith(prefix):
            return last + 1, last + 2
        block = re.match(r'layer(\d)\.(\d+)\.', param_name.removeprefix(prefix))
        if block is None:
            return 0, last + 2
        stage, number = int(block[1]), int(block[2])
        return (1, 2 + number // every[0], begin3 + number // every[1], last)[stage - 1], last + 2

    def train(self, mode: bool = True) -> 'ResNet':
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            set_norms_eval(self)
        return self

    # --- names of the ResNets of mmdet, mmseg, mmpose and mmpretrain, which hooks and detectors use from outside

    @property
    def res_layers(self) -> list[str]:
        """Names of the stages, from ``'layer1'``."""
        return [f'layer{stage + 1}' for stage in range(self.num_stages)]

    @property
    def block(self) -> type[Block]:
        """The class of the blocks."""
        return self.block_type()

    @property
    def stage_blocks(self) -> tuple[int, ...]:
        """Number of blocks in each stage."""
        return self.arch_settings[self.depth][1][: self.num_stages]

    @property
    def feat_dim(self) -> int:
        """Channels of the last stage."""
        return self.out_channels[-1]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, here in (('make_res_layer', 'make_stage'), ('_make_stem_layer', 'make_stem')):
            if name in vars(cls):
                raise InputTypeError(
                    f'{cls.__name__} overrides {name}, which no ResNet of icconv_mm calls: override {here}'
                )

    def _freeze_stages(self) -> None:
        """Freezes the stem and the first ``frozen_stages`` stages; called again by each :meth:`train`."""
        frozen = [self.stem] if self.frozen_stages >= 0 else []
        frozen += [getattr(self, f'layer{stage}') for stage in range(1, self.frozen_stages + 1)]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)


def _tuple_of(given: Any) -> Any:
    """Returns a list as a tuple; anything else unchanged, for the later check."""
    return tuple(given) if isinstance(given, Iterable) else given


def _width(base_width: int | None, width_per_group: int | None) -> int | None:
    """Returns ``base_width``, given under either of its two names."""
    if width_per_group is None:
        return base_width
    check_positive(width_per_group=width_per_group)
    if base_width not in (None, width_per_group):
        raise InputError(
            f'width_per_group is another name of base_width, got width_per_group={width_per_group} and '
            f'base_width={base_width}: give one'
        )
    return width_per_group
