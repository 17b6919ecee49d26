"""Layers of the Feature Pyramid Transformer, https://arxiv.org/abs/2007.09451: three transformers and DropBlock."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.arguments import check_positive, check_probability
from icconv_mm.errors import InputError
from icconv_mm.ops import mixture_attention, window_attention
from icconv_mm.ops.window_attention import check_settings


class MixtureWeights(nn.Module):
    """The weight of each softmax of a mixture: ``softmax_n(w_n . mean_j k_j)`` (below equation 2).

    Args:
        channels: Channels of the keys, all parts together.
        mixtures: Number of softmaxes N.
    """

    def __init__(self, channels: int, mixtures: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(mixtures, channels))
        nn.init.normal_(self.weight, std=channels**-0.5)

    def forward(self, keys: Tensor) -> Tensor:
        """Keys ``[B, C, N_k]`` -> weights ``[B, N]``, in float32 at least."""
        mean = _at_least_float32(keys).mean(-1)
        # not a matrix product, which autocast would compute in half precision
        return (mean[:, None] * self.weight.to(mean.dtype)).sum(-1).softmax(-1)


class SelfTransformer(nn.Module):
    """Interaction of all positions of one level (section 3.2, equations 2 and 3).

    Queries and keys are one projection of the level; softmaxes of their N parts are mixed; the result is projected,
    normalised and added to the level.

    Args:
        channels: Channels of the level, of the queries, keys and values.
        mixtures: Number of parts N, each with a softmax of its own.
        pool_keys: Whether keys and values come from the level averaged over 3x3 at stride 2, a quarter as many.
        norm_cfg: Config of the norm layer; None for none.

    Raises:
        InputError: If ``mixtures`` does not divide ``channels``.

    Example:
        >>> SelfTransformer(16, mixtures=2)(torch.randn(1, 16, 20, 20)).shape
        torch.Size([1, 16, 20, 20])
    """

    def __init__(self, channels: int, mixtures: int = 2, pool_keys: bool = True, norm_cfg: dict | None = None):
        super().__init__()
        _check_parts('self-transformer', channels, mixtures)
        self.mixtures = mixtures
        self.pool = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False) if pool_keys else nn.Identity()
        self.key_conv = nn.Conv2d(channels, channels, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.mixture = MixtureWeights(channels, mixtures)
        self.out_conv = _conv_module(channels, channels, 1, norm_cfg=norm_cfg, act_cfg=None)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> the same shape."""
        pooled = self.pool(x)
        queries, keys = self.key_conv(x), self.key_conv(pooled).flatten(2)
        out = mixture_attention(
            _split_parts(queries.flatten(2), self.mixtures),
            _split_parts(keys, self.mixtures),
            self.value_conv(pooled).flatten(2),
            self.mixture(keys),
            scale=(queries.shape[1] // self.mixtures) ** -0.5,
        )
        return x + self.out_conv(out.unflatten(2, x.shape[2:]))


class GroundingTransformer(nn.Module):
    """Concepts of a coarser level for the pixels of a finer one (section 3.3, equations 4 and 5).

    The norm after the last projection starts at zero, so training starts from the unchanged pyramid.

    Args:
        channels: Channels of both levels.
        inner_channels: Channels of queries, keys and values; half of ``channels`` by default.
        mixtures: Number of parts N, each with a softmax of its own.
        similarity: 'euclidean', ``-|q - k|^2``, the paper's; 'embedded', ``q . k / sqrt(d)``, both under a softmax;
            'dot', ``q . k`` divided by the number of keys, without a softmax. The last two are the embedded Gaussian
            and the dot product of non-local networks, https://arxiv.org/abs/1711.07971.
        window: Side of the square of coarse cells around its own position that a pixel attends to, odd: the
            locality-constrained form (LGT). None for all cells.
        norm_cfg: Config of the norm layer; None for none.

    Raises:
        InputError: If an argument is out of range; in ``forward`` if the window is larger than the coarse map.

    Example:
        >>> fine, coarse = torch.randn(1, 16, 20, 20), torch.randn(1, 16, 10, 10)
        >>> GroundingTransformer(16, window=5)(fine, coarse).shape
        torch.Size([1, 16, 20, 20])
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int | None = None,
        mixtures: int = 4,
        similarity: str = 'euclidean',
        window: int | None = None,
        norm_cfg: dict | None = None,
    ):
        super().__init__()
        inner_channels = inner_channels or channels // 2
        _check_parts('grounding transformer', inner_channels, mixtures)
        check_settings(similarity, 1 if window is None else window)
        self.mixtures, self.similarity, self.window = mixtures, similarity, window
        self.query_conv = nn.Conv2d(channels, inner_channels, 1)
        self.key_conv = nn.Conv2d(channels, inner_channels, 1)
        self.value_conv = nn.Conv2d(channels, inner_channels, 1)
        self.mixture = MixtureWeights(inner_channels, mixtures)
        self.out_conv = _conv_module(inner_channels, channels, 1, norm_cfg=norm_cfg, act_cfg=None)
        if norm_cfg is not None and self.out_conv.norm.weight is not None:  # an instance norm may have none
            nn.init.zeros_(self.out_conv.norm.weight)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """``[B, C, H, W]`` and ``[B, C, h, w]`` -> ``[B, C, H, W]``."""
        queries, keys, values = self.query_conv(fine), self.key_conv(coarse), self.value_conv(coarse)
        mix = self.mixture(keys.flatten(2))
        if self.window is not None:
            return self.out_conv(window_attention(queries, keys, values, mix, self.window, self.similarity))
        queries, keys = (_split_parts(maps.flatten(2), self.mixtures) for maps in (queries, keys))
        if self.similarity == 'embedded':
            out = mixture_attention(queries, keys, values.flatten(2), mix, scale=queries.shape[2] ** -0.5)
        else:
            attend = euclidean_attention if self.similarity == 'euclidean' else dot_product_attention
            out = attend(queries, keys, values.flatten(2), mix)
        return self.out_conv(out.unflatten(2, fine.shape[2:]))


class RenderingTransformer(nn.Module):
    """Appearance of a finer level for the concepts of a coarser one (section 3.4, equation 6).

    A weight for every channel, from the mean of the fine level, multiplies the coarse level, which a convolution then
    refines; convolutions of stride 2 reduce the fine level to the size of the coarse one; a convolution refines the
    sum. In equation 6 the mean itself is the weight; as in the authors' code it passes a projection, a norm and a ReLU.
    That norm exists only for a group norm of several channels: any other would normalise a single value in each image.

    Args:
        channels: Channels of both levels.
        ratio: Size of the fine level over that of the coarse one: 1, 2, 4, ...; 2 by default.
        norm_cfg: Config of the norm layers; None for none.

    Raises:
        InputError: If the ratio is not a power of two.

    Example:
        >>> coarse, fine = torch.randn(1, 16, 10, 10), torch.randn(1, 16, 20, 20)
        >>> RenderingTransformer(16, ratio=2)(coarse, fine).shape
        torch.Size([1, 16, 10, 10])
    """

    def __init__(self, channels: int, ratio: int = 2, norm_cfg: dict | None = None):
        super().__init__()
        if ratio < 1 or ratio & (ratio - 1):
            raise InputError(f'the ratio of two levels must be 1, 2, 4, ..., got {ratio}')
        grouped = norm_cfg is not None and norm_cfg['type'] == 'GN' and norm_cfg['num_groups'] < channels
        self.weight_conv = _conv_module(channels, channels, 1, norm_cfg=norm_cfg if grouped else None)
        self.query_conv = _conv_module(channels, channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=None)
        halvings = ratio.bit_length() - 1
        settings = dict(stride=2 if halvings else 1, padding=1, norm_cfg=norm_cfg)
        convs = [_conv_module(channels, channels, 3, **settings) for _ in range(halvings - 1)]
        self.value_convs = nn.Sequential(*convs, _conv_module(channels, channels, 3, **settings, act_cfg=None))
        self.out_conv = _conv_module(channels, channels, 3, padding=1, norm_cfg=norm_cfg)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """``[B, C, h, w]`` and ``[B, C, H, W]`` with ``h = ceil(H / ratio)``, ``w`` alike -> ``[B, C, h, w]``."""
        weights = self.weight_conv(fine.mean((2, 3), keepdim=True))
        return self.out_conv(self.query_conv(coarse * weights) + self.value_convs(fine))


class DropBlock2d(nn.Module):
    """Sets random squares of every channel to zero while training, and scales the rest to the same mean.

    Args:
        drop_prob: Expected share of the values that are dropped, in [0, 1); 0 switches it off.
        block_size: Side of the squares; on a map that is smaller, the smaller side of the map.

    Raises:
        InputError: If an argument is out of range.

    Source: DropBlock, https://arxiv.org/abs/1810.12890, algorithm 1, with a mask per channel.

    Example:
        >>> drop = DropBlock2d(drop_prob=0.2, block_size=3)
        >>> dropped = drop(torch.ones(1, 8, 32, 32)) == 0
        >>> 0.1 < dropped.float().mean() < 0.3
        tensor(True)
    """

    def __init__(self, drop_prob: float, block_size: int):
        super().__init__()
        check_probability(drop_prob=drop_prob)
        check_positive(block_size=block_size)
        self.drop_prob, self.block_size = drop_prob, block_size

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> the same shape."""
        if not self.training or self.drop_prob == 0 or x.numel() == 0:
            return x
        height, width = x.shape[2:]
        size = min(self.block_size, height, width)
        # centres are sampled where the whole block fits
        rows, columns = height - size + 1, width - size + 1
        gamma = min(1.0, self.drop_prob * height * width / (size**2 * rows * columns))
        centers = (torch.rand((*x.shape[:2], rows, columns), device=x.device) < gamma).to(torch.float32)
        dropped = F.max_pool2d(F.pad(centers, [size - 1] * 4), size, stride=1) > 0
        # summed in float32: float16 ends at 65504, which a map of 256 x 16 x 16 exceeds
        kept = (~dropped).sum(dtype=torch.float32)
        scale = (x.numel() / kept.clamp(min=1)).to(x.dtype)
        return x.masked_fill(dropped, 0) * scale

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob}, block_size={self.block_size}'


def euclidean_attention(queries: Tensor, keys: Tensor, values: Tensor, mix: Tensor) -> Tensor:
    """Mixture of softmaxes of ``-|q - k|^2`` over the keys (equation 4), in float32 at least.

    In ``-|q|^2 + 2 q . k - |k|^2`` the first term is the same for all keys of a query and cancels in the softmax; the
    last is a bias of the key. Distances do not change when the mean of the keys becomes the origin, which keeps the
    terms small: the difference of large terms would lose digits.

    Queries ``[B, N, d, N_q]``, keys ``[B, N, d, N_k]``, values ``[B, C, N_k]`` and weights of the softmaxes ``[B, N]``
    -> ``[B, C, N_q]``.
    """
    queries, keys = _at_least_float32(queries), _at_least_float32(keys)
    origin = keys.detach().mean(-1, keepdim=True)
    queries, keys = queries - origin, keys - origin
    return mixture_attention(queries, keys, values, mix, -keys.square().sum(2), 2.0)


def dot_product_attention(queries: Tensor, keys: Tensor, values: Tensor, mix: Tensor) -> Tensor:
    """Mixture of ``q . k / N_k`` without a softmax; shapes as in :func:`euclidean_attention`.

    Without a softmax the products can be computed in another order, keys with values first, without weights.
    """
    with torch.autocast(queries.device.type, enabled=False):
        dtype = values.dtype
        queries, keys, values = (_at_least_float32(tensor) for tensor in (queries, keys, values))
        summed = values[:, None] @ keys.transpose(-2, -1) / keys.shape[-1]  # [B, N, C, d]
        return ((mix[..., None, None] * summed) @ queries).sum(1).to(dtype)


def _conv_module(*args, **options) -> nn.Module:
    from icconv_mm.compat import ConvModule  # loads mmcv, which other layers do not need

    return ConvModule(*args, **options)


def _split_parts(x: Tensor, parts: int) -> Tensor:
    """``[B, C, L]`` -> ``[B, N, C / N, L]``."""
    return x.unflatten(1, (parts, -1))


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _check_parts(what: str, channels: int, mixtures: int) -> None:
    if mixtures < 1 or channels % mixtures:
        raise InputError(f'{what}: {channels} channels cannot be divided into {mixtures} mixtures')
