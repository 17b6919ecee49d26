"""Necks of SEPC, CVPR 2020, https://arxiv.org/abs/2005.03101: stacked pyramid convolutions."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn

from icconv_mm.arguments import check_not_negative, check_positive
from icconv_mm.compat import MODELS, BaseModule
from icconv_mm.errors import InputError, naming
from icconv_mm.layers import PConvLayer, ScaleEqualizedConv2d
from icconv_mm.layers.fast_eval import set_norms_eval
from icconv_mm.layers.pyramid_conv import NormsFirst, check_pyramid, make_ibn, merged_convs, normalize_and_relu
from icconv_mm.torch_private import is_compiling


@MODELS.register_module()
class PConv(BaseModule):
    """Stacked pyramid convolutions, with outputs of the number and sizes of the inputs.

    It is only a stack of ``pconv_num`` :class:`icconv_mm.layers.PConvLayer`. :class:`SEPC` without options,
    which the paper also calls PConv, adds one convolution for each branch of a dense head to this stack.
    Both follow another neck (FPN, PAFPN, ...) as the second of a list of necks:
    ``neck=[dict(type='FPN', ...), dict(type='icconv_mm.SEPC', in_channels=256, out_channels=256, num_outs=5)]``.

    Args:
        in_channels: Channels of the levels: a number, or one per level, all equal as the levels share their weights.
        out_channels: Channels of the outputs.
        num_outs: Number of levels, 2 or more.
        pconv_num: Number of pyramid convolutions; 4 by default.
        pconv_deform: Deform the pyramid convolutions (scale equalisation). With two levels, the convolution from the
            coarser to the finer level never deforms; its offsets get no gradient.
        ibn: Whether to normalise with statistics of all levels (integrated batch norm).
        start_level: Index of the finest level that deforms; 1 by default, as in the paper's code. ``num_outs`` or more
            turns deformation off.
        sync_ibn: Whether the statistics of integrated batch norm are also those of all processes.
        norm_eval: Keep integrated batch norm on its running statistics in training.
        init_cfg: mmengine initialisation; by default weights are N(0, 0.01), biases and offsets zero.

    Raises:
        InputError: For numbers that do not fit; in ``forward`` for levels that are no pyramid; the message names the
            level.

    Example:
        >>> neck = PConv(in_channels=8, out_channels=8, num_outs=2, pconv_num=1)
        >>> [level.shape for level in neck([torch.randn(1, 8, 32, 32), torch.randn(1, 8, 16, 16)])]
        [torch.Size([1, 8, 32, 32]), torch.Size([1, 8, 16, 16])]
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int,
        num_outs: int,
        pconv_num: int = 4,
        pconv_deform: bool = False,
        ibn: bool = False,
        *,
        start_level: int = 1,
        sync_ibn: bool = False,
        norm_eval: bool = False,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg)
        self.num_outs, self.norm_eval = num_outs, norm_eval
        if isinstance(in_channels, Sequence):
            if len(in_channels) != num_outs or len(set(in_channels)) != 1:
                raise InputError(
                    f'{self._name}: in_channels: the levels share their weights, so expected one number or {num_outs} '
                    f'(num_outs) equal ones, got {list(in_channels)}'
                )
            in_channels = in_channels[0]
        with naming(self._name):
            check_positive(in_channels=in_channels, out_channels=out_channels, pconv_num=pconv_num, num_outs=num_outs)
            check_not_negative(start_level=start_level)
        if num_outs < 2:
            raise InputError(f'{self._name}: num_outs: a pyramid has 2 levels or more, got {num_outs}')
        options = dict(deform=pconv_deform, start_level=start_level, ibn=ibn, sync_ibn=sync_ibn)
        channels = [in_channels] + [out_channels] * pconv_num
        self.pconvs = nn.Sequential(*(PConvLayer(*pair, **options) for pair in pairwise(channels)))

    @property
    def _name(self) -> str:
        return type(self).__name__

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels ``[N, C_in, H_l, W_l]``, finest first, -> levels ``[N, C_out, H_l, W_l]``."""
        self._check_levels(inputs)
        return tuple(self.pconvs(inputs))

    def _check_levels(self, levels: Sequence[Tensor]) -> None:
        if len(levels) != self.num_outs:
            shapes = ', '.join(str(list(x.shape)) for x in levels)
            raise InputError(f'{self._name}: expected {self.num_outs} levels (num_outs), got {len(levels)}: {shapes}')
        if not is_compiling():  # dynamo cannot trace this check; the layers check the same
            with naming(self._name):
                check_pyramid(levels, self.pconvs[0].in_channels)

    def train(self, mode: bool = True) -> 'PConv':
        """Sets the mode as ``nn.Module.train``; with ``norm_eval`` norms stay in evaluation mode."""
        super().train(mode)
        if self.norm_eval:
            set_norms_eval(self)
        return self


_IN_COMMON = ('device', 'dtype', 'ndim', 'new_full', 'new_ones', 'new_tensor', 'new_zeros', 'shape', 'size')


class LevelPairError(InputError, AttributeError):
    """A pair of maps was used as one map."""


class LevelPair(NamedTuple):
    """A level of :class:`SEPC`: one map for each branch of a dense head, both of one shape.

    A head may read common properties of the maps, such as their shape. Using the pair as one map raises an error.
    """

    cls: Tensor
    reg: Tensor

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None) -> Tensor:
        if func is Tensor.type_as:
            return args[0].type_as(args[1].cls)
        raise cls._not_a_map(getattr(func, '__name__', str(func)))

    def __getattr__(self, name: str) -> Any:
        if name in _IN_COMMON:
            return getattr(self.cls, name)
        if hasattr(Tensor, name) and not name.startswith('__'):
            raise self._not_a_map(name)
        raise AttributeError(name)

    @staticmethod
    def _not_a_map(what: str) -> LevelPairError:
        return LevelPairError(
            f"{what}: SEPC with branches='both' gives a pair (classification map, localisation map) per level. Only "
            'the towers cls_convs and reg_convs of an icconv_mm.SplitFeatureHead read it; for other heads take '
            "PConv, or SEPC with branches='cls' or 'reg'"
        )


@MODELS.register_module()
class SEPC(NormsFirst, PConv):
    """Stacked pyramid convolutions, then one 3x3 convolution for classification and one for localisation.

    Returns, per level, the pair (classification map, localisation map) for a head without convolutions of its own
    (``icconv_mm.SplitFeatureHead``). Variants: all off is PConv of the paper's tables; ``ibn``; ``ibn`` and
    ``lcconv_deform`` is SEPC-lite; these and ``pconv_deform`` is SEPC.

    Args:
        in_channels: Channels of the levels: a number, or one per level, all equal as the levels share their weights.
        out_channels: Channels of the outputs.
        num_outs: Number of levels, 2 or more.
        pconv_num: Number of pyramid convolutions; 4 by default.
        pconv_deform: Whether the pyramid convolutions deform (scale equalisation).
        lcconv_deform: Whether the last two convolutions deform.
        ibn: Integrated batch norm after every pyramid convolution and after the last two.
        lcconv_padding: Padding of the last two convolutions. The authors' value is 0, which their weights need: maps
            shrink by one pixel at every side, and no level may be smaller than 3 pixels. 1 keeps the sizes.
        start_level: Index of the finest level that deforms, in pyramid convolutions and the last two, 0 or more; the
            authors' is 1.
        branches: Maps to return: 'both' as pairs (default), 'cls' or 'reg' as plain tensors (dense prediction).
        sync_ibn: Whether the statistics of integrated batch norm are also those of all processes.
        **kwargs: ``norm_eval`` and ``init_cfg`` of :class:`PConv`.

    Raises:
        InputError: For numbers that do not fit; in ``forward`` for levels that are no pyramid or too small; the message
            names the level.

    Example:
        >>> neck = SEPC(in_channels=8, out_channels=8, num_outs=2, ibn=True, lcconv_padding=1)
        >>> fine, coarse = neck([torch.randn(1, 8, 32, 32), torch.randn(1, 8, 16, 16)])
        >>> [branch.shape for branch in fine]  # for classification and for localisation
        [torch.Size([1, 8, 32, 32]), torch.Size([1, 8, 32, 32])]
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int,
        num_outs: int,
        pconv_num: int = 4,
        pconv_deform: bool = False,
        lcconv_deform: bool = False,
        ibn: bool = False,
        lcconv_padding: int = 0,
        *,
        start_level: int = 1,
        branches: str = 'both',
        sync_ibn: bool = False,
        **kwargs,
    ):
        shared = dict(start_level=start_level, sync_ibn=sync_ibn, **kwargs)
        super().__init__(in_channels, out_channels, num_outs, pconv_num, pconv_deform, ibn, **shared)
        if branches not in ('both', 'cls', 'reg'):
            raise InputError(f"SEPC: branches must be 'both', 'cls' or 'reg', got {branches!r}")
        with naming('SEPC'):
            check_not_negative(lcconv_padding=lcconv_padding)
        self.lcconv_deform = lcconv_deform
        self.lcconv_padding = lcconv_padding
        self.start_level = start_level
        self.branches = ('cls', 'reg') if branches == 'both' else (branches,)
        for branch in self.branches:
            conv = ScaleEqualizedConv2d(out_channels, out_channels, padding=lcconv_padding, deform=lcconv_deform)
            self.add_module(f'{branch}_conv', conv)
            self.add_module(f'{branch}_norm', make_ibn(out_channels, sync_ibn) if ibn else None)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[LevelPair | Tensor, ...]:
        """Levels ``[N, C_in, H_l, W_l]`` -> per level the pair ``(cls, reg)``.

        Maps are ``[N, C_out, H_l - 2 + 2 p, W_l - 2 + 2 p]`` where p is ``lcconv_padding``. With ``branches='cls'`` or
        ``'reg'`` one map per level.
        """
        self._check_levels(inputs)
        features = self.pconvs(inputs)
        convs, merged = [getattr(self, f'{branch}_conv') for branch in self.branches], {}
        maps = [
            merged_convs(x, convs, self.lcconv_deform and level >= self.start_level, merged)
            for level, x in enumerate(features)
        ]
        outputs = []
        for branch, of_branch in zip(self.branches, zip(*maps)):
            norm = getattr(self, f'{branch}_norm')
            # without a norm these may be views of one merged output
            outputs.append(normalize_and_relu(of_branch, norm, inplace=norm is not None))
        return tuple(map(LevelPair, *outputs)) if len(outputs) > 1 else tuple(outputs[0])

    def norms_and_convs(self) -> list[tuple[str, tuple[nn.Module, ...]]]:
        """Returns the name of the norm of each branch, and the convolution before it."""
        return [(f'{branch}_norm', (getattr(self, f'{branch}_conv'),)) for branch in self.branches]

    def _check_levels(self, levels: Sequence[Tensor]) -> None:
        super()._check_levels(levels)
        least = 3 - 2 * self.lcconv_padding
        for level, x in enumerate(levels):
            if min(x.shape[-2:]) < least:
                raise InputError(
                    f'SEPC: level {level} is {x.shape[-2]}x{x.shape[-1]}, but lcconv_padding='
                    f'{self.lcconv_padding} needs {least}x{least}: use larger images, fewer levels, or lcconv_padding=1'
                )
