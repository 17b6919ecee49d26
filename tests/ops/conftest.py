"""The one way in which the tests of operators reach what ``dispatch`` and ``compiled_library`` keep to themselves."""

from collections.abc import Callable

import pytest
import torch

from icconv_mm.ops import compiled_library, dispatch
from icconv_mm.ops.dispatch import Kernel


class Choice:
    """Which kernels there are and what has been said of them; changes are undone after the test."""

    def __init__(self, monkeypatch):
        self._monkeypatch = monkeypatch

    @property
    def operators(self) -> dict[str, dict[str, Kernel]]:
        """The kernels of every operator by backend."""
        return {operator: dict(kernels) for operator, kernels in dispatch._kernels.items()}

    def replace(self, operator: str, **kernels: Callable) -> None:
        """Leaves an operator with these alone, each of which serves every call."""
        table = {name: Kernel(run=kernels[name]) for name in dispatch.BACKENDS if name in kernels}
        self._monkeypatch.setitem(dispatch._kernels, operator, table)

    def offer(
        self,
        operator: str,
        run: Callable,
        refusal=lambda *_: None,
        objection=lambda *_: None,
        absence=None,
    ) -> None:
        """Gives an operator another kernel on the CPU."""
        kernel = Kernel(refusal, objection, lambda: absence, run)
        table = {**dispatch._kernels[operator], 'cpu': kernel}
        self._monkeypatch.setitem(dispatch._kernels, operator, table)

    def lose_library(self, reason: str | None) -> None:
        """As if the compiled operators were missing for this reason, or, for None, there."""
        self._monkeypatch.setattr(dispatch._kernels, 'generation', dispatch._kernels.generation + 1)
        for module in (dispatch, compiled_library):
            self._monkeypatch.setattr(module, 'missing_library', lambda: reason)
        self._monkeypatch.setattr(dispatch, 'library_module', lambda: None)

    def find_library(self, package) -> str | None:
        """Looks for the compiled operators in another folder, anew."""
        self._monkeypatch.setattr(compiled_library, '__file__', str(package / 'ops/compiled_library.py'))
        return compiled_library.missing_library.__wrapped__()

    def forget(self) -> None:
        """As if nothing had been logged and nobody warned."""
        self._monkeypatch.setattr(dispatch, '_logged', set())
        dispatch._warn_once.cache_clear()


@pytest.fixture
def choice(monkeypatch):
    changed = Choice(monkeypatch)
    yield changed
    changed.forget()


@pytest.fixture
def opcheck() -> Callable:
    """torch's check of an operator's registration."""
    if not hasattr(torch.library, 'opcheck'):
        pytest.skip('torch.library.opcheck came with torch 2.4')
    return torch.library.opcheck
