"""The fast path of common calls: from the function to the compiled kernel, with the gradient rule in C++."""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from torch import Tensor

from icconv_mm.ops.dispatch import backend, compiled_library
from icconv_mm.utils.torch_private import in_forward_ad, is_compiling

FORWARD, GRADIENTS = 1, 2  # what compiled kernels serve, as the library has it
_log = logging.getLogger(backend.__name__)


class FastCall(NamedTuple):
    """How the compiled library makes calls of an operator on the fast path.

    Attributes:
        maker: The function of the library that prepares the calls of a layer.
        filters: Function from the weights of a call to the argument that the operator takes for them.
        shapes: Function from the weights to the arguments that ``<name>_grad_weight`` takes for their shapes.
        relu: Whether a ReLU follows; such an operator has no gradient.
    """

    maker: str
    filters: Callable[[Sequence[Tensor]], Tensor | list[Tensor]]
    shapes: Callable[[Sequence[Tensor]], tuple]
    relu: bool = False


fast_calls: dict[str, FastCall] = {}  # by operator


def fast_call(
    operator: str, settings: tuple, x: Tensor, weights: Sequence[Tensor], bias: Tensor | None
) -> Tensor | None:
    """The result of ``operator``, or None where the operator itself must be called.

    The operators are defined in Python, and their dispatch and autograd cost some twenty microseconds of the processor,
    more than a small layer takes on a GPU. Here a call of ordinary tensors goes to ``csrc/python/fast_path.cpp``
    instead, where the backend that :mod:`icconv_mm.ops.dispatch.backend` chooses is a compiled one. It asks once for
    each kind of call: backend requested, device, dtype and sizes, which is all that the choice depends on besides the
    numbers of a layer.

    Everything else is left to the operator: calls that are compiled, traced, exported or counted, transforms of
    ``torch.func``, forward-mode gradients, subclasses of tensors, calls that do not fit, and all while choices are
    logged.

    Args:
        operator: One of :data:`fast_calls`.
        settings: A pattern or groups (a tuple), and two numbers: what follows the tensors in the operator.
        x, weights, bias: Tensors of the call; unchecked.
    """
    # first what dynamo knows, so that it traces none of the rest
    if is_compiling() or in_forward_ad() or _log.isEnabledFor(logging.DEBUG):
        return None
    try:
        prepared = _prepared(operator, settings, backend.generation())
    except TypeError:  # numbers that are none, or that 64 bits do not hold: the operator says what is wrong
        return None
    return None if prepared is None else prepared(x, weights, bias, backend.requested())


@lru_cache(maxsize=4096)  # layers of a process
def _prepared(operator: str, settings: tuple, generation: int) -> Callable | None:
    """The call of a layer as the library holds it; None without the library."""
    module = compiled_library.library_module()
    if module is None:
        return None
    make = getattr(module, fast_calls[operator].maker)
    return make(list(settings[0]), *settings[1:], fast_calls[operator].relu, partial(_served, operator, settings))


def _served(operator: str, settings: tuple, x: Tensor, weights: Sequence[Tensor], bias: Tensor | None) -> int:
    """Which of the passes of a call compiled kernels serve here and now."""
    known = fast_calls[operator]
    filters = known.filters(weights)
    if not backend.is_compiled(operator, x, filters, bias, *settings):
        return 0
    if known.relu:
        return FORWARD
    grad = x.new_empty(0, sum(weight.shape[0] for weight in weights), *x.shape[2:])
    to_input = backend.is_compiled(f'{operator}_grad_input', grad, filters, tuple(x.shape[2:]), *settings)
    to_weight = backend.is_compiled(f'{operator}_grad_weight', grad, x, *known.shapes(weights), *settings)
    return FORWARD | (GRADIENTS if to_input and to_weight else 0)
