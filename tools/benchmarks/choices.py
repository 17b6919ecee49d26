"""The patterns and the backends of what is timed."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from icconv_mm.ops import explain
from icconv_mm.patterns import load_pattern

_OPERATORS = ('inception_conv2d', 'inception_conv2d_relu', 'pyconv2d', 'pyconv2d_relu')


def find_pattern(published: str, substitute: str) -> str:
    """A published pattern, or the analytic one that stands in for it where it is not at hand."""
    try:
        load_pattern(published)
    except FileNotFoundError:
        return substitute
    return published


class _Choices(TorchDispatchMode):
    """Counts the backends that serve the convolutions of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        if func.namespace == 'icconv_mm' and func.overloadpacket.__name__ in _OPERATORS:
            self.counts[explain(func.overloadpacket.__name__, *args).chosen] += 1
        return func(*args, **(kwargs or {}))


def count_backends(call: Callable[[], object]) -> Counter[str]:
    """How many inception and pyramidal convolutions of a call each backend serves."""
    with _Choices() as choices:
        call()
    return choices.counts
