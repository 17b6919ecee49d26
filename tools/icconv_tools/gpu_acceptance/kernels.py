"""The kernels of an operator, each by its name, on one call."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from icconv_mm.ops import use_backend
from icconv_mm.ops.dispatch import backend
from icconv_mm.ops.dispatch.kernel_table import KERNELS
from icconv_tools.benchmark import harness

# Adds the chosen backend, as users get it, to kernels by name; 'reference' is plain torch.
CHOSEN, REFERENCE = 'chosen', 'reference'


def kernel_calls(operator: str, args: tuple) -> dict[str, Callable[[], object]]:
    """Calls of every kernel that takes the arguments of ``operator``, of what is chosen, and of the reference."""
    run = getattr(torch.ops.icconv_mm, operator).default

    def by_reference():
        with use_backend('reference'):
            return run(*args)

    calls = {REFERENCE: by_reference, CHOSEN: lambda: run(*args)}
    backend.missing_library()  # loads it
    named = getattr(torch.ops.icconv_mm, f'{operator}_by', None)
    if named is None:
        return calls
    more = (False,) if operator in ('inception_conv2d', 'pyconv2d') else ()  # without ReLU
    for kernel in KERNELS.get(operator, ()):
        if kernel != REFERENCE:
            calls[kernel] = lambda kernel=kernel: named(kernel, *args, *more)
    return calls


def agreeing(calls: Mapping[str, Callable[[], object]], tolerance: float) -> tuple[dict[str, Callable], dict[str, str]]:
    """The calls whose results are the reference's, and why the others are not timed."""
    expected = tensors(calls[REFERENCE]())
    good, refused = {}, {}
    for name, call in calls.items():
        try:
            harness.check_equal(name, tensors(call()), expected, tolerance)
            good[name] = call
        except Exception as error:  # a kernel that refuses the call, and one that computes something else
            refused[name] = str(error).splitlines()[0]
    return good, refused


def tensors(result: object) -> list[Tensor]:
    """The tensors of a result."""
    return [result] if isinstance(result, Tensor) else [each for each in result if isinstance(each, Tensor)]
