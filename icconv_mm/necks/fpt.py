"""The neck of the Feature Pyramid Transformer, ECCV 2020, https://arxiv.org/abs/2007.09451."""

from collections.abc import Iterable, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.arguments import check_all_positive, check_not_negative, check_positive, without_none
from icconv_mm.compat import MODELS, BaseModule, ConvModule
from icconv_mm.errors import InputError, naming
from icconv_mm.layers import DropBlock2d, GroundingTransformer, RenderingTransformer, SelfTransformer
from icconv_mm.ops.window_attention import check_settings

INTERACTIONS = ('self', 'grounding', 'rendering')


@MODELS.register_module()
class FPT(BaseModule):
    """Feature Pyramid Transformer.

    The input is the backbone's bottom-up pyramid, without a top-down sum. Every level is projected to ``out_channels``
    and concatenated with its self-transformer, the grounding transformers from all coarser levels and the rendering
    transformers from all finer ones, each followed by DropBlock. A 3x3 convolution brings that back to
    ``out_channels`` (section 3.5).

    For detection the levels halve in size. For segmentation they have one size (``strides=[8, 8, 8, 8]``) and the
    grounding transformers a ``window``.

    Args:
        in_channels: Channels of each level of the input, the finest first.
        out_channels: Channels of each level of the output; 256 by default.
        num_outs: Number of output levels; by default the levels used. Further ones are computed from the last; with
            fewer, the coarser levels enrich the others and are not enriched themselves.
        strides: Stride of each level of the input, up to a common factor; each is 1, 2, 4, ... times the finest one. By
            default every level is half as large as the one before.
        start_level: Index of the first level that is used; 0 by default.
        add_extra_convs: Computation of output levels beyond those used: False, by taking every second position of the
            last output; 'on_input' (or True) and 'on_output', by 3x3 convolutions of stride 2 on the last input or
            output.
        interactions: Names of the interactions, out of 'self', 'grounding' and 'rendering'; all by default.
        self_mixtures: Number of softmaxes of the self-transformers, which divides ``out_channels``; 2 by default.
        grounding_mixtures: Number of softmaxes of the grounding transformers, which divides half of ``out_channels``; 4
            by default.
        similarity: Similarity of the grounding transformers: 'euclidean' (default), 'embedded' or 'dot'.
        window: Side of the window of the grounding transformers, odd; by default they attend to the whole coarse level.
        pool_keys: Whether the self-transformers average the keys and values to a quarter of the positions.
        drop_prob: Probability of DropBlock, in [0, 1); 0.2 by default.
        block_size: Side of the blocks of DropBlock; 3 by default.
        norm_cfg: Config of all norm layers; GroupNorm of 32 groups by default; None for none.
        init_cfg: mmengine initialisation.
        relu_before_extra_convs: Whether a ReLU precedes the extra convolutions after the first.

    Raises:
        InputError: If an argument is out of range; in ``forward``, if the input is no such pyramid.

    Example:
        >>> neck = FPT(in_channels=[8, 16], out_channels=32)
        >>> [level.shape for level in neck([torch.randn(1, 8, 32, 32), torch.randn(1, 16, 16, 16)])]
        [torch.Size([1, 32, 32, 32]), torch.Size([1, 32, 16, 16])]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        num_outs: int | None = None,
        strides: Sequence[int] | None = None,
        start_level: int = 0,
        add_extra_convs: bool | str = False,
        *,
        interactions: Sequence[str] = INTERACTIONS,
        self_mixtures: int = 2,
        grounding_mixtures: int = 4,
        similarity: str = 'euclidean',
        window: int | None = None,
        pool_keys: bool = True,
        drop_prob: float = 0.2,
        block_size: int = 3,
        norm_cfg: dict | None = dict(type='GN', num_groups=32),  # noqa: B006
        init_cfg: dict | list[dict] | None = dict(type='Xavier', layer='Conv2d', distribution='uniform'),  # noqa: B006
        relu_before_extra_convs: bool = False,
    ):
        super().__init__(init_cfg)
        self.relu_before_extra_convs = relu_before_extra_convs
        with naming('FPT'):
            check_positive(out_channels=out_channels, **without_none(num_outs=num_outs, window=window))
            check_positive(self_mixtures=self_mixtures, grounding_mixtures=grounding_mixtures)
            check_not_negative(start_level=start_level)
            check_all_positive(in_channels=in_channels, **without_none(strides=strides))
        if isinstance(interactions, str) or not isinstance(interactions, Iterable):
            raise InputError(f'FPT: interactions must be a list, of {", ".join(INTERACTIONS)}, got {interactions!r}')
        self.in_channels, self.out_channels = list(in_channels), out_channels
        self.strides = [2**level for level in range(len(in_channels))] if strides is None else list(strides)
        self.start_level = start_level
        self.num_levels = len(in_channels) - start_level
        self.num_outs = self.num_levels if num_outs is None else num_outs
        self.add_extra_convs = 'on_input' if add_extra_convs is True else add_extra_convs
        self.interactions = tuple(interactions)
        self.window = window if 'grounding' in interactions else None
        self._check_arguments()

        enriched = range(min(self.num_outs, self.num_levels))
        plain = dict(norm_cfg=norm_cfg, act_cfg=None)
        with naming('FPT: norm_cfg', ValueError):
            self.laterals = nn.ModuleList(
                ConvModule(channel, out_channels, 1, **plain) for channel in in_channels[start_level:]
            )
        grounding = dict(mixtures=grounding_mixtures, similarity=similarity, window=window)
        self._make_transformers(dict(mixtures=self_mixtures, pool_keys=pool_keys), grounding, norm_cfg)
        with naming('FPT'):
            self.drop_block = DropBlock2d(drop_prob, block_size)
        self.outputs = nn.ModuleList(
            ConvModule(self._maps(level) * out_channels, out_channels, 3, padding=1, **plain) for level in enriched
        )
        extra = [out_channels] * (self.num_outs - self.num_levels if self.add_extra_convs else 0)
        if extra and self.add_extra_convs == 'on_input':
            extra[0] = in_channels[-1]
        self.extra_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 3, stride=2, padding=1, act_cfg=None) for channels in extra
        )

    def _make_transformers(self, self_settings: dict, grounding_settings: dict, norm_cfg: dict | None) -> None:
        """Builds the transformers within each level and between each two, with the settings of their classes."""
        channels, enriched = self.out_channels, range(min(self.num_outs, self.num_levels))
        with naming('FPT: out_channels and self_mixtures', ValueError):
            self.self_transformers = nn.ModuleList(
                SelfTransformer(channels, **self_settings, norm_cfg=norm_cfg)
                for _ in (enriched if 'self' in self.interactions else ())
            )
        # named after the two levels, the enriched one first
        self.groundings, self.renderings = nn.ModuleDict(), nn.ModuleDict()
        for fine, coarse in combinations(range(self.num_levels), 2):
            if 'grounding' in self.interactions and fine in enriched:
                with naming('FPT', ValueError):
                    check_settings(grounding_settings['similarity'], 1 if self.window is None else self.window)
                with naming('FPT: out_channels and grounding_mixtures', ValueError):
                    transformer = GroundingTransformer(channels, **grounding_settings, norm_cfg=norm_cfg)
                self.groundings[f'{fine}_{coarse}'] = transformer
            if 'rendering' in self.interactions and coarse in enriched:
                ratio = self.strides[self.start_level + coarse] // self.strides[self.start_level + fine]
                self.renderings[f'{coarse}_{fine}'] = RenderingTransformer(channels, ratio, norm_cfg)

    def _check_arguments(self) -> None:
        levels = len(self.in_channels)
        if self.start_level >= levels:
            raise InputError(f'FPT: start_level must be a level, 0 to {levels - 1}, got {self.start_level}')
        if len(self.strides) != levels:
            raise InputError(f'FPT: strides must have {levels} entries (in_channels), got {self.strides}')
        for finer, coarser in zip(self.strides, self.strides[1:]):
            ratio = coarser // finer
            if coarser % finer or ratio & (ratio - 1):
                raise InputError(f'FPT: each stride must be 1, 2, 4, ... times the one before it, got {self.strides}')
        if self.add_extra_convs not in (False, 'on_input', 'on_output'):
            raise InputError(
                f"FPT: add_extra_convs must be False, 'on_input' or 'on_output', got {self.add_extra_convs!r}"
            )
        if unknown := [name for name in self.interactions if name not in INTERACTIONS]:
            raise InputError(f'FPT: interactions are {", ".join(INTERACTIONS)}, got {", ".join(map(repr, unknown))}')
        if 'grounding' in self.interactions and self.out_channels % 2:
            raise InputError(
                f'FPT: out_channels must be even, as grounding transformers have half of them, got {self.out_channels}'
            )

    def _maps(self, level: int) -> int:
        """Returns the number of maps concatenated at a level."""
        coarser = self.num_levels - 1 - level
        counts = {'self': 1, 'grounding': coarser, 'rendering': level}
        return 1 + sum(counts[name] for name in set(self.interactions))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps ``[B, in_channels[i], H_i, W_i]``, the finest first -> ``num_outs`` maps ``[B, out_channels, ...]``.

        Raises:
            InputError: If the maps do not have the number, the channels or the sizes of the pyramid: a level at stride
                s is ``ceil(H s_0 / s)`` high, as after strided convolutions.
        """
        self._check_inputs(inputs)
        levels = [conv(x) for conv, x in zip(self.laterals, inputs[self.start_level :])]
        outputs = [conv(self._interact(levels, index)) for index, conv in enumerate(self.outputs)]
        return (*outputs, *self._extra_levels(inputs[-1], outputs[-1]))

    def _interact(self, levels: list[Tensor], index: int) -> Tensor:
        maps = []
        if self.self_transformers:
            maps.append(self.self_transformers[index](levels[index]))
        for other, level in enumerate(levels):
            for transformers in (self.groundings, self.renderings):
                if (name := f'{index}_{other}') in transformers:
                    maps.append(transformers[name](levels[index], level))
        return torch.cat([levels[index], *(self.drop_block(feature_map) for feature_map in maps)], 1)

    def _extra_levels(self, last_input: Tensor, last_output: Tensor) -> list[Tensor]:
        extra: list[Tensor] = []
        source = last_input if self.add_extra_convs == 'on_input' else last_output
        for index in range(self.num_outs - self.num_levels):
            if index and self.extra_convs and self.relu_before_extra_convs:
                source = F.relu(source)
            source = self.extra_convs[index](source) if self.extra_convs else F.max_pool2d(source, 1, stride=2)
            extra.append(source)
        return extra

    def _check_inputs(self, inputs: Sequence[Tensor]) -> None:
        if len(inputs) != len(self.in_channels):
            raise InputError(f'FPT: expected {len(self.in_channels)} levels, got {len(inputs)}')
        first = inputs[self.start_level]
        for level in range(self.start_level, len(inputs)):
            ratio = self.strides[level] // self.strides[self.start_level]
            expected = [first.shape[0], self.in_channels[level], *(-(-size // ratio) for size in first.shape[2:])]
            if (shape := list(inputs[level].shape)) != expected:
                raise InputError(
                    f'FPT: the levels are not a pyramid of strides {self.strides}: level {level} must have the shape '
                    f'{expected}, got {shape}'
                )
            if self.window is not None and level > self.start_level and self.window > min(shape[2:]):
                raise InputError(
                    f'FPT: level {level} is {shape[2]} x {shape[3]}, smaller than the window of {self.window} of the '
                    'grounding transformers'
                )
