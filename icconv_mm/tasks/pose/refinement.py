"""Sub-pixel shift of peaks, and search for keypoints that grouping did not find. All people and keypoints at once."""

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

_BLOCK = 16  # side of the square blocks that the search prunes by; a block by tag has as many pixels
_CROWD = 1000  # queries from which sorting all pixels by tag pays
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


@dataclass
class _Blocks:
    """The maps cut into B blocks of S x S neighbouring pixels, and what bounds the values inside a block."""

    heat: Tensor  # [K * B * S, S]: every row of S pixels
    tags: list[Tensor]  # the same per tag dimension
    highest: Tensor  # [K, B], largest heatmap value
    ranges: list[tuple[Tensor, Tensor]]  # smallest and largest tag per tag dimension, [K, B] each
    width: int  # of a map, padded to whole blocks
    probes: ClassVar[int] = 8  # blocks looked into per query before pruning

    def rows(self, keypoint: Tensor, block: Tensor) -> Tensor:
        """The rows of the pixels of N blocks, [N, S]."""
        columns = self.width // _BLOCK
        line = torch.arange(_BLOCK, device=block.device)
        y = (block // columns * _BLOCK).unsqueeze(1) + line
        height = self.highest.shape[1] // columns * _BLOCK
        return (keypoint.unsqueeze(1) * height + y) * columns + (block % columns).unsqueeze(1)

    def first(self, keypoint: Tensor, block: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The largest of the values of N blocks, and the flat index in the map where it is first. [N, S * S] -> [N]."""
        value, index = values.max(1)
        columns = self.width // _BLOCK
        y, x = block // columns * _BLOCK + index // _BLOCK, block % columns * _BLOCK + index % _BLOCK
        return value, y * self.width + x


@dataclass
class _BlocksByTag(_Blocks):
    """The same for pixels in the order of their tags: where many people are near each other, tags are not."""

    order: Tensor  # [K * B * S, S]: flat index in the map
    probes: ClassVar[int] = 4

    def rows(self, keypoint: Tensor, block: Tensor) -> Tensor:
        line = torch.arange(_BLOCK, device=block.device)
        return ((keypoint * self.highest.shape[1] + block) * _BLOCK).unsqueeze(1) + line

    def first(self, keypoint: Tensor, block: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        value = values.amax(1)
        place = self.order.index_select(0, self.rows(keypoint, block).flatten()).view_as(values)
        return value, place.masked_fill(values < value.unsqueeze(1), torch.iinfo(place.dtype).max).amin(1)


def best_pixels(heatmaps: Tensor, tags: Tensor, keypoint: Tensor, mean_tags: Tensor) -> Tensor:
    """For M queries, the pixel that maximises ``heatmap - round(|tag - mean_tag|)``; the first one in a tie.

    Exact branch and bound: a block's value cannot exceed its highest heatmap value less the rounded distance of the
    mean tag from the block's range of tags. A few promising blocks give a lower bound of the maximum, and only blocks
    whose bound reaches it are evaluated; looking at all pixels would cost more than the rest of decoding. In a crowd
    every neighbourhood has many tags and bounds nothing, so blocks are of pixels with like tags.

    Args:
        heatmaps, tags: [K, H, W] and [K, H, W, L].
        keypoint: [M], whose maps to search.
        mean_tags: [M, L].

    Returns:
        [M, 2], (x, y).
    """
    blocks = _cut_by_tag(heatmaps, tags, mean_tags) if len(keypoint) > _CROWD else _cut(heatmaps, tags)
    queries = max(1, _CHUNK // blocks.highest.shape[1])
    parts = zip(keypoint.split(queries), mean_tags.split(queries))
    flat = torch.cat([_search(blocks, part, mean) for part, mean in parts])
    return torch.stack([flat % blocks.width, flat // blocks.width], -1)


def _cut(heatmaps: Tensor, tags: Tensor) -> _Blocks:
    border = (0, -heatmaps.shape[2] % _BLOCK, 0, -heatmaps.shape[1] % _BLOCK)

    def fill(maps: Tensor, value: float) -> Tensor:
        return (pad(maps, border, value=value) if any(border) else maps).contiguous()

    def extreme(maps: Tensor, reduce) -> Tensor:  # over rows first: that pass reads contiguous memory
        return reduce(reduce(maps.unflatten(1, (-1, _BLOCK)), 2).unflatten(2, (-1, _BLOCK)), 3).flatten(1)

    heat = fill(heatmaps, float('-inf'))
    cut = [fill(tag, 0.0) for tag in tags.unbind(-1)]
    ranges = [(extreme(tag, torch.amin), extreme(tag, torch.amax)) for tag in cut]
    rows = [maps.view(-1, _BLOCK) for maps in (heat, *cut)]
    return _Blocks(rows[0], rows[1:], extreme(heat, torch.amax), ranges, heat.shape[2])


def _cut_by_tag(heatmaps: Tensor, tags: Tensor, mean_tags: Tensor) -> _BlocksByTag:
    order = _order_by_tag(tags.flatten(1, 2), mean_tags)
    missing = -order.shape[1] % _BLOCK**2

    def fill(pixels: Tensor, value: float) -> Tensor:
        return (pad(pixels, (0, missing), value=value) if missing else pixels).unflatten(1, (-1, _BLOCK**2))

    def sort(maps: Tensor, value: float) -> Tensor:
        return fill(maps.flatten(1).gather(1, order), value)

    heat = sort(heatmaps, float('-inf'))
    cut = [sort(tag, 0.0) for tag in tags.unbind(-1)]
    ranges = [(tag.amin(2), tag.amax(2)) for tag in cut]
    rows = [maps.view(-1, _BLOCK) for maps in (heat, *cut, fill(order, 0))]
    return _BlocksByTag(rows[0], rows[1:-1], heat.amax(2), ranges, heatmaps.shape[2], rows[-1])


def _order_by_tag(tags: Tensor, mean_tags: Tensor) -> Tensor:
    """The pixels of [K, N, L] so that like tags are near each other: along a Z curve of the first two. [K, N]."""
    tags, mean_tags = tags[..., :2], mean_tags[:, :2]
    low, high = mean_tags.amin(0) - 1, mean_tags.amax(0) + 1  # beyond, tags cost more than they can gain
    bits = 16 // tags.shape[-1]
    cells = ((tags - low) / (high - low)).clamp_(0, 1).mul_(2**bits - 1).int()
    key = cells[..., 0] if bits == 16 else sum(_spread(cells[..., i]) << i for i in (0, 1))
    if key.device.type != 'cpu':
        return key.argsort(1, stable=True)
    return torch.from_numpy(np.argsort(key.numpy().astype(np.uint16), axis=1, kind='stable'))  # a radix sort


def _spread(x: Tensor) -> Tensor:
    """The eight bits of an integer, with a zero before each."""
    for shift, mask in ((4, 0x0F0F), (2, 0x3333), (1, 0x5555)):
        x = (x | x << shift) & mask
    return x


def _search(blocks: _Blocks, keypoint: Tensor, mean_tags: Tensor) -> Tensor:
    """Flat index (in the padded map) of the best pixel per query, [M]."""
    bound = blocks.highest[keypoint] - _distance(
        torch.maximum(low[keypoint] - mean, mean - high[keypoint]).clamp_(min=0)
        for (low, high), mean in zip(blocks.ranges, mean_tags.split(1, 1))
    )  # [M, B]

    probes = bound.topk(min(blocks.probes, bound.shape[1]), dim=1).indices
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
    rows = blocks.rows(keypoint[query], block).flatten()

    def gather(maps: Tensor) -> Tensor:
        return maps.index_select(0, rows).view(-1, _BLOCK**2)  # [N, S * S]

    values = gather(blocks.heat).sub_(
        _distance(gather(tag).sub_(mean) for tag, mean in zip(blocks.tags, mean_tags[query].split(1, 1)))
    )
    value, flat = blocks.first(keypoint[query], block, values)

    best = value.new_full((len(keypoint),), float('-inf')).scatter_reduce(0, query, value, 'amax')
    last = torch.iinfo(flat.dtype).max
    flat = flat.masked_fill(value < best[query], last)
    return best, flat.new_full((len(keypoint),), last).scatter_reduce(0, query, flat, 'amin')


def _distance(differences) -> Tensor:
    """Rounded Euclidean norm over the given components, which it overwrites. Monotonic in each, also as rounded."""
    return reduce(Tensor.add_, (difference.square_() for difference in differences)).sqrt_().round_()
