"""Sub-pixel shift of peaks, and search for keypoints that grouping did not find. All people and keypoints at once."""

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

_BLOCK = 16  # side of the square blocks that the search prunes by
_PROBES = 8  # blocks looked into per keypoint before pruning
_CHUNK = 1 << 22  # values per temporary tensor of the search, which bounds its memory


def quarter_shift(heatmaps: Tensor, pixels: Tensor) -> Tensor:
    """Positions with a quarter-pixel shift towards the larger of the two neighbours, along x and y.

    A tie shifts towards zero. The result counts from the pixel's corner: the centre of pixel 0 is 0.5.

    Heatmaps [K, H, W] and integer pixels (x, y) [P, K, 2] -> [P, K, 2], float32.
    """
    height, width = heatmaps.shape[1:]
    x, y = pixels.unbind(-1)
    keypoint = torch.arange(heatmaps.shape[0], device=heatmaps.device).expand_as(x)
    right = heatmaps[keypoint, y, (x + 1).clamp(max=width - 1)] > heatmaps[keypoint, y, (x - 1).clamp(min=0)]
    below = heatmaps[keypoint, (y + 1).clamp(max=height - 1), x] > heatmaps[keypoint, (y - 1).clamp(min=0), x]
    return pixels + 0.5 + torch.where(torch.stack([right, below], -1), 0.25, -0.25)


def fill_missing(heatmaps: Tensor, tags: Tensor, keypoints: Tensor, pixels: Tensor, found: Tensor) -> Tensor:
    """Give every missing keypoint the pixel that maximises ``heatmap - round(|tag - person's mean tag|)``.

    It is accepted where the heatmap is positive, and always gets the quarter-pixel shift.

    Args:
        heatmaps, tags: [K, H, W] and [K, H, W, L].
        keypoints: [P, K, 3], (x, y, score); every person has at least one keypoint.
        pixels, found: [P, K, 2], the pixels of the keypoints found, and [P, K].

    Returns:
        [P, K, 3]; keypoints that were found are unchanged.
    """
    person, keypoint = torch.nonzero(~found, as_tuple=True)
    if len(keypoint) == 0:
        return keypoints
    x, y = pixels.unbind(-1)
    every_keypoint = torch.arange(heatmaps.shape[0], device=heatmaps.device).expand_as(x)
    weight = found.unsqueeze(-1).to(tags.dtype)
    mean_tags = (tags[every_keypoint, y, x] * weight).sum(1) / weight.sum(1)  # [P, L]

    best = pixels.clone()
    best[person, keypoint] = best_pixels(heatmaps, tags, keypoint, mean_tags[person])
    x, y = best.unbind(-1)
    scores = heatmaps[every_keypoint, y, x].to(keypoints.dtype)
    filled = torch.cat([quarter_shift(heatmaps, best).to(keypoints.dtype), scores.unsqueeze(-1)], -1)
    accept = ~found & (scores > 0)
    return torch.where(accept.unsqueeze(-1), filled, keypoints)


class _Blocks(NamedTuple):
    """The maps cut into S x S blocks, R rows and C columns of them, and what bounds the values inside a block."""

    shape: tuple[int, int]  # R, C
    heat: Tensor  # [K * R * S * C, S]: every row of S pixels
    tags: list[Tensor]  # the same per tag dimension
    highest: Tensor  # [K, R * C], largest heatmap value
    ranges: list[tuple[Tensor, Tensor]]  # smallest and largest tag per tag dimension, [K, R * C] each


def best_pixels(heatmaps: Tensor, tags: Tensor, keypoint: Tensor, mean_tags: Tensor) -> Tensor:
    """For M queries, the pixel that maximises ``heatmap - round(|tag - mean_tag|)``; the first one in a tie.

    Exact branch and bound: a block's value cannot exceed its highest heatmap value less the rounded distance of the
    mean tag from the block's range of tags. A few promising blocks give a lower bound of the maximum, and only blocks
    whose bound reaches it are evaluated; looking at all pixels would cost more than the rest of decoding.

    Args:
        heatmaps, tags: [K, H, W] and [K, H, W, L].
        keypoint: [M], whose maps to search.
        mean_tags: [M, L].

    Returns:
        [M, 2], (x, y).
    """
    blocks = _cut(heatmaps, tags)
    queries = max(1, _CHUNK // blocks.highest.shape[1])
    parts = zip(keypoint.split(queries), mean_tags.split(queries))
    flat = torch.cat([_search(blocks, part, mean) for part, mean in parts])
    width = blocks.shape[1] * _BLOCK
    return torch.stack([flat % width, flat // width], -1)


def _cut(heatmaps: Tensor, tags: Tensor) -> _Blocks:
    border = (0, -heatmaps.shape[2] % _BLOCK, 0, -heatmaps.shape[1] % _BLOCK)

    def fill(maps: Tensor, value: float) -> Tensor:
        return (pad(maps, border, value=value) if any(border) else maps).contiguous()

    def extreme(maps: Tensor, reduce) -> Tensor:  # over rows first: that pass reads contiguous memory
        return reduce(reduce(maps.unflatten(1, (-1, _BLOCK)), 2).unflatten(2, (-1, _BLOCK)), 3).flatten(1)

    heat = fill(heatmaps, float('-inf'))
    cut = [fill(tag, 0.0) for tag in tags.unbind(-1)]
    ranges = [(extreme(tag, torch.amin), extreme(tag, torch.amax)) for tag in cut]
    shape = heat.shape[1] // _BLOCK, heat.shape[2] // _BLOCK
    return _Blocks(
        shape, heat.view(-1, _BLOCK), [tag.view(-1, _BLOCK) for tag in cut], extreme(heat, torch.amax), ranges
    )


def _search(blocks: _Blocks, keypoint: Tensor, mean_tags: Tensor) -> Tensor:
    """Flat index (in the padded map) of the best pixel per query, [M]."""
    bound = blocks.highest[keypoint] - _distance(
        torch.maximum(low[keypoint] - mean, mean - high[keypoint]).clamp_(min=0)
        for (low, high), mean in zip(blocks.ranges, mean_tags.split(1, 1))
    )  # [M, R * C]

    probes = bound.topk(min(_PROBES, bound.shape[1]), dim=1).indices
    query = torch.arange(len(keypoint), device=keypoint.device).repeat_interleave(probes.shape[1])
    best, first = _evaluate(blocks, keypoint, mean_tags, query, probes.flatten())
    bound.scatter_(1, probes, float('-inf'))

    query, block = torch.nonzero(bound >= best.unsqueeze(1), as_tuple=True)
    step = _CHUNK // _BLOCK**2
    for part, chosen in zip(query.split(step), block.split(step)):
        value, flat = _evaluate(blocks, keypoint, mean_tags, part, chosen)
        first = torch.where(value > best, flat, torch.where(value == best, torch.minimum(first, flat), first))
        best = torch.maximum(best, value)
    return first


def _evaluate(
    blocks: _Blocks, keypoint: Tensor, mean_tags: Tensor, query: Tensor, block: Tensor
) -> tuple[Tensor, Tensor]:
    """Best value of every query over N (query, block) pairs, and its first flat index, [M] each."""
    rows, columns = blocks.shape
    line = torch.arange(_BLOCK, device=block.device)
    y = (block // columns * _BLOCK).unsqueeze(1) + line  # [N, S]
    pixels = ((keypoint[query].unsqueeze(1) * rows * _BLOCK + y) * columns + (block % columns).unsqueeze(1)).flatten()

    def gather(maps: Tensor) -> Tensor:
        return maps.index_select(0, pixels).view(-1, _BLOCK**2)  # [N, S * S]

    values = gather(blocks.heat).sub_(
        _distance(gather(tag).sub_(mean) for tag, mean in zip(blocks.tags, mean_tags[query].split(1, 1)))
    )
    value, index = values.max(1)
    flat = (block // columns * _BLOCK + index // _BLOCK) * columns * _BLOCK + block % columns * _BLOCK + index % _BLOCK

    best = value.new_full((len(keypoint),), float('-inf')).scatter_reduce(0, query, value, 'amax')
    last = torch.iinfo(flat.dtype).max
    flat = flat.masked_fill(value < best[query], last)
    return best, flat.new_full((len(keypoint),), last).scatter_reduce(0, query, flat, 'amin')


def _distance(differences) -> Tensor:
    """Rounded Euclidean norm over the given components, which it overwrites. Monotonic in each, also as rounded."""
    return reduce(Tensor.add_, (difference.square_() for difference in differences)).sqrt_().round_()
