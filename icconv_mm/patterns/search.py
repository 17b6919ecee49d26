"""Efficient dilation optimisation (EDO): from the weights of a supernet to a dilation pattern.

Inception Convolution with Efficient Dilation Search, CVPR 2021, section 3.2. A filter W of the supernet has
K x K taps, ``K = 2 * d_max + 1``. Dilation d keeps the nine taps ``S(d) = {centre + (a * d_h, b * d_w)}``, a, b in
{-1, 0, 1}, and the search selects, for every filter, the d whose kept kernel W_d changes the output least: ``min_d
E|W X - W_d X|``.
The choice for one filter does not depend on the others, so one pass over the weights is the whole search.

With only the mean m_c of input channel c known (1 by default, measured on images by ``measure_channel_means``), that
error has an estimate and two bounds, the named criteria. D_c are the dropped taps of W that read channel c:

- ``'rms'``: ``sqrt((sum_c m_c * sum D_c)^2 + (pi - 1) * sum_c m_c^2 * sum D_c^2)``, the root mean square of the change
  for independent inputs after batch norm and ReLU: ReLUs of Gaussians, whose variance is ``(pi - 1) * m_c^2``.
- ``'expectation'``: ``|sum_c m_c * sum D_c|``, the distance of the expected outputs. It is the paper's form and a
  lower bound (Jensen's inequality): dropped taps of opposite sign cancel.
- ``'kept_mass'``: ``sum_c m_c * sum |D_c|``, an upper bound by the triangle inequality: nothing cancels.

docs/search.md explains why ``'rms'`` is the default.

The initial checkpoint of the searched network: the kept taps of a supernet, channels sorted by dilation.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from icconv_mm.arguments import require_known
from icconv_mm.errors import InputError
from icconv_mm.patterns.alignment import aligned_choices, block_of
from icconv_mm.patterns.channel_order import runs_of, sort_channels
from icconv_mm.patterns.pattern import DilationPattern
from icconv_mm.patterns.receptive_field import evaluating
from icconv_mm.patterns.supernet import (
    LayerFilter,
    SupernetKernel,
    candidates,
    keep_taps,
    select_convs,
    select_kernels,
    tap_indices,
)

CRITERIA = ('rms', 'expectation', 'kept_mass')
TIE = 1e-10  # errors closer than this share of the filter's mass are equal: above the rounding of fp64 sums


@dataclass(frozen=True, eq=False)
class LayerResult:
    """The result of the search for one layer.

    Attributes:
        name: The layer.
        dilations: (d_h, d_w) of each filter or, in a grouped convolution, of each group of filters, [U, 2].
        groups: Groups of the convolution.
        kept: Share of the kept taps in the sum of absolute weights.
        extra: By how much the sum of errors exceeds the least one, as a share of it: what alignment costs.
    """

    name: str
    dilations: Tensor
    groups: int
    kept: float
    extra: float = 0.0

    def pattern(self, sort: bool = False) -> DilationPattern:
        """Returns the layer's pattern, its runs in the order of the supernet's channels or sorted by dilation."""
        return runs_of(self.dilations, sort)


def edo_search(
    model: nn.Module | Mapping[str, Tensor],
    d_max: int,
    criterion: str = 'rms',
    channel_means: Mapping[str, Tensor] | Sequence[Tensor] | None = None,
    filter: LayerFilter = None,
    groups: int | Mapping[str, int] = 1,
    sort: bool = False,
    align: int | None = None,
) -> list[DilationPattern]:
    """Searches the dilation of every filter of a supernet.

    Args:
        model: The supernet with (2 * d_max + 1)^2 kernels (``ICResNet(..., supernet_d_max=d_max)`` or
            ``layers.to_supernet``), or its state dict.
        d_max: The largest dilation.
        criterion: One of ``CRITERIA``; see the module.
        channel_means: The expected input m_c of each layer, [C_in], by layer name or in the order of the layers; 1 by
            default.
        filter: Selects layers: a regular expression searched in the name, or a callable (name, convolution or, for a
            state dict, weight) -> bool. By default all kernels above 3x3 but those of the stem.
        groups: Groups of the convolutions, all or {layer: groups}; only for a state dict. The filters of a group share
            one dilation (their errors add up) and the pattern counts in groups.
        sort: False keeps the order of the supernet's channels, so that the pattern fits its weights; True sorts a
            layer's channels by dilation, as in the published patterns, for a network trained from scratch.
        align: Channels in a block: each dilation of a layer gets whole blocks, with the least sum of errors; channels
            beyond the last whole block are undilated, and a block consists of whole groups. By default any numbers.

    Returns:
        One pattern per layer, in order of definition, which is the forward order of a ResNet. Equal errors go to the
        smaller dilation: smaller d_h + d_w, then smaller d_h.

    Raises:
        InputError: If the criterion is unknown; a kernel has another size than d_max requires; weights or means
            contain NaN or infinity; the means do not fit the layers. The message names the layer and the numbers.
        MissingLibraryError: If ``align`` is given and scipy is not installed.
    """
    results = search_layers(model, d_max, criterion, channel_means, filter, groups, align)
    return [result.pattern(sort) for result in results]


@torch.no_grad()
def search_layers(
    model: nn.Module | Mapping[str, Tensor],
    d_max: int,
    criterion: str = 'rms',
    channel_means: Mapping[str, Tensor] | Sequence[Tensor] | None = None,
    filter: LayerFilter = None,
    groups: int | Mapping[str, int] = 1,
    align: int | None = None,
) -> list[LayerResult]:
    """Searches as :func:`edo_search`, but returns the details of every layer."""
    require_known([criterion], CRITERIA, 'no criterion')
    kernels = select_kernels(model, d_max, filter, groups)
    means = {} if channel_means is None else _means_by_layer(kernels, channel_means)
    results = []
    for kernel in kernels:
        errors, mass = dilation_errors(kernel, d_max, criterion, means.get(kernel.name))
        least = errors.amin(1, keepdim=True)
        chosen = (errors <= least + TIE * mass[:, None]).to(torch.uint8).argmax(1)  # the first of equals: the smallest
        if align is not None:
            size = len(kernel.weight) // kernel.groups if kernel.groups > 1 else 1
            chosen = aligned_choices(errors, block_of(align, size) // size)
        dilations = candidates(d_max)[chosen]
        extra = float(errors.gather(1, chosen[:, None]).sum() / least.sum()) - 1 if least.any() else 0.0
        total = kernel.weight.abs().sum(dtype=torch.float64).item()
        kept = keep_taps(kernel.weight, dilations).abs().sum(dtype=torch.float64).item()
        results.append(
            LayerResult(kernel.name, dilations, kernel.groups, kept / total if total else 1.0, max(extra, 0.0))
        )
    return results


def dilation_errors(
    kernel: SupernetKernel, d_max: int, criterion: str, mean: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the error of every candidate dilation for every filter (or group of filters), in fp64.

    Args:
        kernel: Weight of one layer, [C_out, C_in / groups, K, K].
        d_max: The largest dilation.
        criterion: One of ``CRITERIA``.
        mean: m_c of the input, [C_in]; 1 by default.

    Returns:
        The errors [U, d_max^2], candidates in the order of ``candidates``, and the filters' mass
        ``sum_c |m_c| * sum |W_c|`` [U], the scale of the errors. U is C_out, or groups in a grouped convolution.
    """
    weight = kernel.weight.detach().cpu()
    weight = weight if weight.dtype == torch.float64 else weight.float()
    mean = None if mean is None else mean.detach().cpu().double()
    choices = candidates(d_max)
    dropped = torch.ones(len(choices), (2 * d_max + 1) ** 2, dtype=torch.float64)
    dropped.scatter_(1, tap_indices(choices, d_max), 0)

    mass = _sum_inputs(weight.abs(), kernel.groups, None if mean is None else mean.abs())
    if criterion == 'kept_mass':
        errors = mass @ dropped.T
    else:
        errors = (_sum_inputs(weight, kernel.groups, mean) @ dropped.T).abs()
    if criterion == 'rms':
        squares = _sum_inputs(weight.square(), kernel.groups, None if mean is None else mean.square())
        errors = (errors.square() + (math.pi - 1) * (squares @ dropped.T)).sqrt()
    mass = mass.sum(1)
    if kernel.groups > 1:
        errors, mass = (x.unflatten(0, (kernel.groups, -1)).sum(1) for x in (errors, mass))
    return errors, mass


def _sum_inputs(weight: Tensor, groups: int, mean: Tensor | None) -> Tensor:
    """Returns sum_c m_c * W_c of every filter, c over the input channels of its group, in fp64: [C_out, K * K]."""
    weight = weight.flatten(2)
    if mean is None:
        return weight.sum(1, dtype=torch.float64)
    mean = mean.view(groups, 1, 1, -1)
    return (mean @ weight.double().unflatten(0, (groups, -1))).flatten(0, 2)


def _means_by_layer(
    kernels: list[SupernetKernel], means: Mapping[str, Tensor] | Sequence[Tensor]
) -> Mapping[str, Tensor]:
    if not isinstance(means, Mapping):
        if len(means) != len(kernels):
            raise InputError(f'channel means of {len(means)} layers for {len(kernels)} supernet layers')
        means = {kernel.name: mean for kernel, mean in zip(kernels, means)}
    for kernel in kernels:
        if kernel.name not in means:
            raise InputError(f'{kernel.name}: no channel means given')
        mean = means[kernel.name]
        if mean.shape != (kernel.in_channels,):
            raise InputError(f'{kernel.name}: channel means [{kernel.in_channels}] expected, got {list(mean.shape)}')
        if not mean.isfinite().all():
            raise InputError(f'{kernel.name}: {(~mean.isfinite()).sum().item()} channel means are NaN or infinite')
    return means


@torch.no_grad()
def measure_channel_means(
    model: nn.Module,
    batches: Iterable[Tensor],
    filter: LayerFilter = None,
    forward: Callable[[Tensor], object] | None = None,
) -> dict[str, Tensor]:
    """Measures m_c = E[x_c], the mean input of every channel of every searchable convolution, on images.

    Args:
        model: The supernet; it runs in eval mode; its mode is restored.
        batches: Inputs of the network, e.g. normalised images [N, 3, H, W].
        filter: Selects layers, as in :func:`edo_search`.
        forward: Function that runs a batch; ``model`` by default.

    Returns:
        {layer: [C_in] in fp64}. Zero padding does not count.

    Raises:
        InputError: If no batch reached a convolution.
    """
    sums: dict[str, Tensor] = {}
    pixels: Counter[str] = Counter()

    def measure(name: str, _: nn.Module, args: tuple[Tensor]) -> None:
        x = args[0]
        sums[name] = sums.get(name, 0) + x.sum((0, 2, 3), dtype=torch.float64).cpu()
        pixels[name] += x.numel() // x.shape[1]

    with ExitStack() as hooks, evaluating(model):
        for name, conv in select_convs(model, filter):
            hooks.enter_context(conv.register_forward_pre_hook(partial(measure, name)))
        for batch in batches:
            (forward or model)(batch)
    if not pixels:
        raise InputError('no channel means measured: no batch was given, or none reached a selected convolution')
    return {name: total / pixels[name] for name, total in sums.items()}


def inherit_taps(
    state: Mapping[str, Tensor], results: Sequence[LayerResult], sort: bool = True
) -> tuple[list[DilationPattern], dict[str, Tensor]]:
    """Reduces a supernet's state dict to the taps that the search kept.

    With that pattern the network computes what the supernet computes with all other taps set to zero.

    Args:
        state: State dict of the supernet; keys under any prefix.
        results: What ``search_layers`` returned for this supernet, one result per layer.
        sort: Sort the channels of a layer by dilation where this keeps the network's function: see
            :func:`icconv_mm.patterns.channel_order.sort_channels`. False keeps every channel in place.

    Returns:
        The patterns, one per layer, and a new state dict that fits them; tensors outside the search are shared.
    """
    state = dict(state)
    patterns = []
    for result in results:
        key = f'{result.name}.weight'
        state[key] = keep_taps(state[key], result.dilations)
        dilations = result.dilations
        if sort:
            dilations = sort_channels(state, result.name, dilations, result.groups)
        patterns.append(runs_of(dilations))
    return patterns, state
