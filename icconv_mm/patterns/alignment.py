"""Patterns whose runs are whole blocks of channels, in which runtimes compute."""

import numpy as np
import torch
from torch import Tensor

from icconv_mm.errors import InputError, MissingLibraryError
from icconv_mm.patterns.pattern import DilationPattern

_UNDILATED = (1, 1)


def align(pattern: DilationPattern, block: int, groups: int = 1) -> DilationPattern:
    """Returns the nearest pattern with multiples of ``block`` channels in each run, one run per dilation.

    Numbers of blocks are rounded by the largest remainder; of equal ones the smallest dilation's grows. Channels beyond
    the last whole block are undilated. Without the errors of a search nothing better is known; with them, see
    ``align`` of :func:`icconv_mm.patterns.search.edo_search`.

    Args:
        pattern: The pattern of one layer, in channels.
        block: Channels in a block, such as 32.
        groups: Groups of the convolution: a block then consists of whole groups, at least one.

    Raises:
        InputError: ``block`` is no number above 0.

    Example:
        >>> align(DilationPattern([(40, 1, 1), (20, 1, 2), (4, 3, 3)]), 16)
        DilationPattern(48x(1, 1), 16x(1, 2))
    """
    block = block_of(block, pattern.out_channels // groups if groups > 1 else 1)
    blocks, rest = divmod(pattern.out_channels, block)
    counts = dict.fromkeys([_UNDILATED], 0) | pattern.histogram()
    wanted = {dilation: max(0, n - rest * (dilation == _UNDILATED)) for dilation, n in counts.items()}
    total = sum(wanted.values())
    quotas = {dilation: blocks * n / total for dilation, n in wanted.items()} if total else {_UNDILATED: 0.0}
    given = {dilation: int(quota) for dilation, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda dilation: (given[dilation] - quotas[dilation], sum(dilation), dilation))
    for dilation in by_remainder[: blocks - sum(given.values())]:
        given[dilation] += 1
    runs = ((n * block + rest * (dilation == _UNDILATED), *dilation) for dilation, n in sorted(given.items()))
    return DilationPattern([run for run in runs if run[0]])


def block_of(block: int, group_size: int) -> int:
    """Returns the channels of a block that consists of whole groups; raises InputError unless ``block`` is positive."""
    if isinstance(block, bool) or not isinstance(block, int) or block < 1:
        raise InputError(f'align: expected a number of channels above 0, got {block!r}')
    return max(1, block // group_size) * group_size if group_size > 1 else block


def aligned_dilations(weight: Tensor, pattern: DilationPattern, block: int, groups: int = 1) -> Tensor:
    """Returns the dilation of each filter, or of each group of filters, [U, 2], as :func:`align` but filter by filter.

    A filter costs its norm times the distance to its new dilation, over the height and width; the sum of costs is the
    least that there is. A layer uses the dilations of its pattern and (1, 1).

    Args:
        weight: The filters, [C_out, C_in / groups, 3, 3].
        pattern: Their pattern, in channels.
        block: Channels in a block, such as 32.
        groups: Groups of the convolution: a block then consists of whole groups, at least one.

    Raises:
        InputError: ``block`` is no number above 0.
        MissingLibraryError: scipy is not installed.
    """
    size = pattern.out_channels // groups if groups > 1 else 1
    block = block_of(block, size)
    choices = torch.tensor(sorted({_UNDILATED, *pattern.histogram()}, key=lambda dilation: (sum(dilation), dilation)))
    norms = weight.detach().cpu().double().flatten(1).norm(dim=1)
    steps = dilation_of_each(pattern)[:, None] - choices
    costs = (norms[:, None] * steps.double().norm(dim=2)).unflatten(0, (-1, size)).sum(1)
    return choices[aligned_choices(costs, block // size)]


def dilation_of_each(pattern: DilationPattern) -> Tensor:
    """Returns the dilation of each channel, [C, 2]."""
    return torch.tensor([dilation for count, *dilation in pattern for _ in range(count)])


def aligned_choices(errors: Tensor, block: int) -> Tensor:
    """Returns the candidate of each filter [U] with the least sum of errors whose counts are multiples of ``block``.

    The filters beyond the last whole block take the first candidate, the undilated one. The counts solve an integer
    programme exactly (HiGHS), the filters an assignment.

    Args:
        errors: The error of each filter with each candidate, [U, D], finite.
        block: Filters in a block.

    Raises:
        MissingLibraryError: scipy is not installed.
    """
    try:
        from scipy import sparse
        from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp
    except ImportError:
        raise MissingLibraryError('align needs scipy, which is not installed: pip install scipy') from None
    costs = errors.double().numpy()
    units, candidates = costs.shape
    blocks, rest = divmod(units, block)
    costs = costs / max(float(np.abs(costs).max()), np.finfo(float).tiny)
    # variables: the share of each filter in each candidate, then the blocks of each candidate
    one_each = sparse.hstack([sparse.kron(sparse.eye(units), np.ones((1, candidates))), np.zeros((units, candidates))])
    filled = sparse.hstack([sparse.kron(np.ones((1, units)), sparse.eye(candidates)), -block * sparse.eye(candidates)])
    extra = np.eye(1, candidates)[0] * rest
    solution = milp(
        np.concatenate([costs.ravel(), np.zeros(candidates)]),
        integrality=np.repeat([0, 1], [units * candidates, candidates]),
        bounds=Bounds(0, np.repeat([1, blocks], [units * candidates, candidates])),
        constraints=[LinearConstraint(one_each.tocsc(), 1, 1), LinearConstraint(filled.tocsc(), extra, extra)],
        options={'mip_rel_gap': 0},
    )
    counts = np.rint(solution.x[-candidates:]).astype(int) * block + extra.astype(int)
    slots = np.repeat(np.arange(candidates), counts)
    _, columns = linear_sum_assignment(costs[:, slots])
    return torch.from_numpy(slots[columns])
