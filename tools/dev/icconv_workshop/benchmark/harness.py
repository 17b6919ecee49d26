"""A fair comparison: equal results first, then all contenders in turn, each in the memory format that suits it best."""

import copy
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icconv_mm.errors import UserError
from icconv_workshop.benchmark.report import Figure
from icconv_workshop.benchmark.timing import Options, Timing, interleave

FORMATS = {'NCHW': torch.contiguous_format, 'channels_last': torch.channels_last}
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}  # of the largest value of a result

_log = logging.getLogger(__name__)

# contender -> memory format -> the call to time, which returns tensors
Contenders = Mapping[str, Mapping[str, Callable[[], Iterable[Tensor]]]]


class Disagreement(UserError, RuntimeError):
    """Contenders gave different results, so that timing them would compare nothing."""


@dataclass(frozen=True)
class Result:
    """What became of a contender.

    Attributes:
        timing: Timing in its best memory format.
        format: That format.
    """

    timing: Timing
    format: str


def uses_tf32(options: Options) -> bool:
    """Whether convolutions round their factors to TF32, as torch does on GPUs unless told otherwise."""
    is_cuda = torch.device(options.device).type == 'cuda'
    return is_cuda and options.tensor_dtype == torch.float32 and torch.backends.cudnn.allow_tf32


def tolerance(options: Options, tolerances: Mapping[torch.dtype, float] = TOLERANCES) -> float:
    """The tolerance of the dtype that is timed; TF32 has the digits of float16."""
    return tolerances[torch.float16 if uses_tf32(options) else options.tensor_dtype]


def forward(call: Callable[[], Iterable[Tensor]]) -> Callable[[], list[Tensor]]:
    """The call without gradients."""
    return torch.no_grad()(lambda: list(call()))


def step(
    call: Callable[[], Iterable[Tensor]], leaves: Iterable[Tensor], grads: Iterable[Tensor] | None = None
) -> Callable[[], list[Tensor]]:
    """The call and its backward pass: what it returns, then the gradients of ``leaves``.

    They are not accumulated in the leaves, which would copy them.
    """
    leaves = list(leaves)

    def run() -> list[Tensor]:
        outputs = list(call())
        return [*outputs, *torch.autograd.grad(outputs, leaves, grads)]

    return run


def in_formats(
    make: Callable[..., Callable], module: nn.Module, *tensors: Tensor, formats: Iterable[str] = tuple(FORMATS)
) -> dict[str, Callable]:
    """``make(module, *tensors)`` by memory format, each with copies: tensors in that format, and the module's weights.

    NCHW leaves the weights as the module has them.
    """
    return {
        name: make(
            copy.deepcopy(module) if name == 'NCHW' else copy.deepcopy(module).to(memory_format=FORMATS[name]),
            *(tensor.contiguous(memory_format=FORMATS[name]) for tensor in tensors),
        )
        for name in formats
    }


def loss_weights(like: Tensor) -> Tensor:
    """Fixed weights for a loss, float32, laid out as ``like``.

    A loss of squares would hardly change with what comes before the last norms.
    """
    weights = torch.arange(like.numel(), dtype=torch.float32, device=like.device).cos().view(like.shape)
    return torch.empty_like(like, dtype=torch.float32, requires_grad=False).copy_(weights)


def of_maximum(one: Tensor, other: Tensor) -> float:
    """Largest deviation, relative to the largest value."""
    return ((one - other).abs().max() / other.abs().max().clamp(min=1e-12)).item()


def of_norm(one: Tensor, other: Tensor) -> float:
    """Euclidean norm of the deviations, relative to that of the values."""
    return ((one - other).norm() / other.norm().clamp(min=1e-12)).item()


def check_equal(
    label: str,
    got: Iterable[Tensor],
    expected: Iterable[Tensor],
    tolerance: float,
    deviation: Callable[[Tensor, Tensor], float] = of_maximum,
) -> None:
    """Raise Disagreement, naming ``label`` and the number of a tensor, unless all deviate by ``tolerance`` at most."""
    for number, (one, other) in enumerate(zip(got, expected, strict=True)):
        error = deviation(one.float(), other.float()) if one.shape == other.shape else float('nan')
        if not error <= tolerance:
            unit = deviation.__name__.replace('_', ' the ')
            raise Disagreement(f'{label}: result {number} is off by {error:.1e} {unit}, allowed {tolerance:.0e}')


def check_agreement(
    label: str,
    contenders: Contenders,
    equal: Iterable[str],
    tolerance: float,
    deviation: Callable[[Tensor, Tensor], float] = of_maximum,
) -> None:
    """Raise Disagreement unless memory formats, and the contenders named ``equal``, have the same results.

    The first of ``equal`` is what the others are held against.
    """
    _log.info('%s: comparing results', label)
    first, *_ = equal = list(equal)
    expected = {}
    for name in [*equal, *(name for name in contenders if name not in equal)]:
        for memory_format, call in contenders[name].items():
            got = [tensor.detach() for tensor in call()]
            held = expected.setdefault(first if name in equal else name, got)
            check_equal(f'{label}: {name} in {memory_format}', got, held, tolerance, deviation)


def time_contenders(contenders: Contenders, options: Options) -> dict[str, Result]:
    """Times every contender in every memory format in turn; keeps each one's best format."""
    _log.info('timing %s', ', '.join(contenders))
    calls = {(name, fmt): call for name, formats in contenders.items() for fmt, call in formats.items()}
    times = interleave(calls, options)
    best = {name: min(formats, key=lambda fmt: times[name, fmt].median) for name, formats in contenders.items()}
    return {name: Result(times[name, fmt], fmt) for name, fmt in best.items()}


def figures(
    suite: str,
    label: str,
    results: Mapping[str, Result],
    limits: Mapping[str, float | None],
    notes: Mapping[str, object],
) -> list[Figure]:
    """One figure per baseline: ``<label>: ours / <baseline>`` for all results but 'ours'."""
    ours = results['ours']
    rows = []
    for name, other in results.items():
        if name == 'ours':
            continue
        formats = {'formats': f'{ours.format} / {other.format}'}
        figure = f'{label}: ours / {name}'
        rows.append(Figure(suite, figure, ours.timing, other.timing, limits.get(name), {**notes, **formats}))
    return rows
