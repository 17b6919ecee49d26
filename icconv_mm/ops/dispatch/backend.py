"""Which implementation of an operator a call gets."""

import inspect
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from typing import Any, NamedTuple

import torch

from icconv_mm.ops.dispatch import kernel_table
from icconv_mm.ops.dispatch.compiled_library import REBUILD, missing_kernel, missing_library

BACKENDS = ('cpu', 'cuda', 'reference')  # best first
VARIABLE = 'ICCONV_MM_BACKEND'
_log = logging.getLogger(__name__)
_requested: ContextVar[str | None] = ContextVar('icconv_mm_backend', default=None)


class Status(NamedTuple):
    """Whether a backend is there at all; true in a condition if it is.

    Attributes:
        available: Whether it is there.
        reason: Why it is available, or why it is not, in one sentence.

    Example:
        >>> bool(backends()['reference'])
        True
    """

    available: bool
    reason: str

    def __bool__(self) -> bool:
        return self.available


class Verdict(Enum):
    """The kinds of answers of a backend to a call.

    Attributes:
        CAN_RUN: It serves the call, if no better backend does.
        NOT_ADVISED: It serves the call within ``use_backend`` only: another is faster, or nothing was measured.
        REFUSED: It cannot serve such a call.
        ABSENT: It could, but is not installed.

    Example:
        >>> x, weight = torch.randn(1, 8, 32, 32), torch.randn(6, 8, 3, 3)
        >>> answers = explain('inception_conv2d', x, weight, None, [(4, 1, 1), (2, 2, 4)])
        >>> answers['reference'].verdict is Verdict.CAN_RUN
        True
    """

    CAN_RUN = 'can run'
    NOT_ADVISED = 'can run within use_backend'
    REFUSED = 'cannot run such a call'
    ABSENT = 'is not installed'


@dataclass(frozen=True)
class Answer:
    """The answer of a backend to a call; true in a condition if it can run, as a string one sentence.

    Attributes:
        verdict: The kind of answer.
        reason: Why it is no better one, in one sentence; empty where the backend can run.

    Example:
        >>> x, weight = torch.randn(1, 8, 32, 32), torch.randn(6, 8, 3, 3)
        >>> answer = explain('inception_conv2d', x, weight, None, [(4, 1, 1), (2, 2, 4)])['cuda']
        >>> answer.verdict, bool(answer), str(answer)
        (<Verdict.REFUSED: 'cannot run such a call'>, False, 'it takes tensors on a CUDA device, got cpu')
    """

    verdict: Verdict
    reason: str = ''

    @property
    def serves(self) -> bool:
        """Whether the backend runs the call within ``use_backend``."""
        return self.verdict in (Verdict.CAN_RUN, Verdict.NOT_ADVISED)

    def __bool__(self) -> bool:
        return self.verdict is Verdict.CAN_RUN

    def __str__(self) -> str:
        if self.verdict is Verdict.NOT_ADVISED:
            return f'{self.verdict.value}: {self.reason}'
        return self.reason or self.verdict.value


_CAN_RUN = Answer(Verdict.CAN_RUN)


def _no_reason(*_) -> None:
    """No call is refused."""


class Limits(NamedTuple):
    """What a compiled kernel does not serve: functions of a call's arguments that return a reason, or None."""

    refusal: Callable[..., str | None]
    objection: Callable[..., str | None] = _no_reason  # why it should serve a call within ``use_backend`` only
    kernel: Callable[..., str | None] = _no_reason  # the name of the one that serves, where a backend has several


class Implementation(NamedTuple):
    """One implementation of one operator; its functions take the operator's arguments."""

    run: Callable
    limits: Limits = Limits(_no_reason)
    absence: Callable[[], str | None] = _no_reason
    is_compiled: bool = False  # whether ``run`` is nothing but the operator of the compiled library

    def answer(self, *args) -> Answer:
        """Whether it runs a call: if it takes it, if it is installed, if it is advised."""
        if reason := self.limits.refusal(*args):
            return Answer(Verdict.REFUSED, reason)
        if reason := self.absence():
            return Answer(Verdict.ABSENT, reason)
        if reason := self.limits.objection(*args):
            return Answer(Verdict.NOT_ADVISED, reason)
        return _CAN_RUN


class Arguments(NamedTuple):
    """What a call of an operator takes: for ``explain``, which is asked with the same."""

    function: Callable  # whose signature it is
    check: Callable[..., None] = _no_reason  # raises where the operator's arguments do not fit
    converters: Mapping[str, Callable] = {}  # by argument, from what the function takes to what the operator takes

    def of(self, operator: str, args: tuple, named: Mapping[str, object]) -> tuple:
        """All arguments of a call, as the operator takes them; raises what the call raises of them."""
        signature = inspect.signature(self.function)
        try:
            call = signature.bind(*args, **named)
        except TypeError as error:
            names = ', '.join(signature.parameters)
            raise TypeError(f'explain: {error}; {operator} takes {names}') from None
        call.apply_defaults()
        for name, convert in self.converters.items():
            if name in call.arguments:
                call.arguments[name] = convert(call.arguments[name])
        self.check(*call.args)
        return call.args


class _Implementations(dict):
    """Those of each operator by backend, best first; counts how often they were exchanged."""

    generation = 0

    def __setitem__(self, operator: str, by_backend: dict[str, Implementation]) -> None:
        super().__setitem__(operator, by_backend)
        self.generation += 1


_implementations = _Implementations()
_arguments: dict[str, Arguments] = {}  # by operator
_logged: set[str] = set()
_MOST_LOGGED = 1000  # reasons hold numbers of the calls


def register(
    operator: str,
    reference: Callable,
    limits: Mapping[str, Limits],
    compiled: Callable | None = None,
    arguments: Arguments | None = None,
) -> None:
    """Registers what runs an operator; arguments as of :func:`icconv_mm.ops.definition.operator.define`.

    ``compiled`` is what calls the compiled kernels, where that is more than the call of ``<operator>_compiled``.
    """
    name = f'{operator}_compiled'

    def run(*args):
        return getattr(torch.ops.icconv_mm, name).default(*args)  # is there only after the library is

    _arguments[operator] = arguments or Arguments(reference)
    _implementations[operator] = {
        each: Implementation(compiled or run, limits[each], partial(missing_kernel, name, each), compiled is None)
        for each in BACKENDS
        if each in limits
    } | {'reference': Implementation(reference)}


def register_function(
    name: str, reference: Callable, limits: Mapping[str, Limits], compiled: Callable
) -> Callable[..., Any]:
    """A function that has backends and is no operator of ``torch.library``.

    For what ``torch.library`` does not suit: an operator of it cannot both change a buffer and have a gradient, and
    adds microseconds to a call.

    Args:
        name: Name of the function, by which ``explain`` knows it.
        reference: Function that computes the results and their gradients on tensors of any device.
        limits: Limits of the compiled kernels ``<name>_compiled``, by backend.
        compiled: Function that calls them, with gradients; its arguments are those that ``explain`` takes.
    """
    register(name, reference, limits, compiled, Arguments(compiled))
    return partial(run, name)


def backends() -> dict[str, Status]:
    """The backends that exist and whether each is available here, with the reason.

    Example:
        >>> backends()['reference']
        Status(available=True, reason='plain PyTorch, always available')
    """
    missing = missing_library()
    with_openmp = getattr(torch.ops.icconv_mm, 'compiled_with_openmp', None)
    threads = '' if with_openmp and with_openmp() else ', without OpenMP: they run on one thread'
    cuda = _missing_kernels('cuda') if torch.cuda.is_available() else 'torch sees no CUDA device'
    return {
        'cpu': Status(missing is None, missing or f'compiled operators loaded{threads}'),
        'cuda': Status(cuda is None, cuda or 'compiled operators loaded'),
        'reference': Status(True, 'plain PyTorch, always available'),
    }


def _missing_kernels(backend: str) -> str | None:
    """None if any operator has its kernel on this backend, else why the first has none."""
    reasons = [known[backend].absence() for known in _implementations.values() if backend in known]
    return None if None in reasons else reasons[0]


def forget_packed_weights() -> int:
    """Frees the packed weights, and the memory for packed inputs, that inference on CPUs keeps.

    Results do not depend on it: a weight that has changed is packed anew.

    Returns:
        How many packed weights there were.

    Example:
        >>> forget_packed_weights() >= 0
        True
    """
    return 0 if missing_library() else torch.ops.icconv_mm.forget_packed_weights()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within it, operators run on the backend ``name``: 'reference', 'cpu', 'cuda', or 'auto' (the best that can).

    It concerns the current thread, and the backward passes of what was computed within. An operator that has no
    implementation at all on that backend runs its reference. The environment variable ``ICCONV_MM_BACKEND`` does the
    same for a whole process.

    Raises:
        ValueError: If there is no backend of this name.
        RuntimeError: From the operator, if the backend cannot serve a call; the message says why.

    Example:
        >>> x, weight = torch.randn(1, 8, 32, 32), torch.randn(6, 8, 3, 3)
        >>> with use_backend('reference'):
        ...     inception_conv2d(x, weight, bias=None, pattern=[(4, 1, 1), (2, 2, 4)]).shape
        torch.Size([1, 6, 32, 32])
    """
    token = _requested.set(_checked(name, 'use_backend'))
    try:
        yield
    finally:
        _requested.reset(token)


@contextmanager
def use_kernel(operator: str, kernel: str) -> Iterator[None]:
    """Within it, calls of an operator on CUDA run this kernel where it takes them, in the whole process.

    It is for measurements of whole networks. Calls that the kernel does not take run as without it.

    Args:
        operator: Name of the operator; that with ReLU goes with the plain one.
        kernel: One of those in docs/kernels.md.

    Raises:
        ValueError: If the operator has no such kernel.
        RuntimeError: If there are no compiled operators; the message says why.

    Example:
        >>> x, weight = torch.randn(1, 8, 32, 32), torch.randn(6, 8, 3, 3)
        >>> with use_kernel('inception_conv2d', 'kn2row'):  # on the CPU nothing changes
        ...     inception_conv2d(x, weight, bias=None, pattern=[(4, 1, 1), (2, 2, 4)]).shape
        torch.Size([1, 6, 32, 32])
    """
    if reason := missing_library():
        raise RuntimeError(f'use_kernel: {reason}')
    with kernel_table.use(operator, kernel):
        yield


def requested() -> str:
    """The backend in use: of the innermost ``use_backend``, else of the environment variable, else 'auto'."""
    return _requested.get() or _checked(os.environ.get(VARIABLE) or 'auto', VARIABLE)


class Explanation(dict[str, Answer]):
    """The answer of every backend of an operator, best first.

    Attributes:
        chosen: The backend that serves the call; None where the one in use cannot.
        kernel: The kernel that serves the call, where the backend has several ('cuda'); else the name of the backend.

    Example:
        >>> x, weight, pattern = torch.randn(1, 4, 8, 8), torch.randn(4, 4, 3, 3), [(2, 1, 1), (2, 2, 2)]
        >>> with use_backend('reference'):
        ...     explain('inception_conv2d', x, weight, None, pattern).chosen
        'reference'
    """

    def __init__(self, answers: Mapping[str, Answer], chosen: str | None, kernel: str | None = None):
        super().__init__(answers)
        self.chosen, self.kernel = chosen, kernel or chosen

    def __repr__(self) -> str:
        kernel = f', kernel={self.kernel!r}' if self.kernel != self.chosen else ''
        sentences = {name: str(answer) for name, answer in self.items()}
        return f'{type(self).__name__}(chosen={self.chosen!r}{kernel}, {sentences})'


def explain(operator: str, *args, **named) -> Explanation:
    """Which backend serves a call of ``operator`` here and now, and why not the others.

    No backend is asked for a convolution with a single dilation or level, which is torch's own: this says what the
    operator would run.

    Args:
        operator: Name of the operator, e.g. 'inception_conv2d'.
        *args: The arguments of one call, as the function of this name takes them; a pattern may also be flat
            (:attr:`DilationPattern.flat`). Of an operator without a function, such as a gradient, they are its own.
        **named: Arguments by name.

    Returns:
        A dictionary from backends, best first, to their answers. Its ``chosen`` is the backend that serves the call,
        ``use_backend`` and the environment variable considered, its ``kernel`` the kernel that serves it.

    Raises:
        ValueError: If there is no such operator, or the arguments do not fit; then the message is that of the call.
        TypeError: If it takes other arguments; the message says which.

    Example:
        >>> x, weight = torch.randn(1, 8, 32, 32).double(), torch.randn(6, 8, 3, 3).double()
        >>> answers = explain('inception_conv2d', x, weight, None, [(4, 1, 1), (2, 2, 4)])
        >>> answers.chosen, str(answers['cpu'])
        ('reference', 'it takes float32 or bfloat16, the same for all, got torch.float64')
    """
    if operator not in _implementations:
        raise ValueError(f'explain: no operator {operator!r}; there are {", ".join(sorted(_implementations))}')
    args = _arguments[operator].of(operator, args, named)
    known, (name, asked) = _implementations[operator], _choose(operator, args)
    answers = {each: asked[each] if each in asked else known[each].answer(*args) for each in known}
    if not asked[name].serves:
        return Explanation(answers, None)
    return Explanation(answers, name, known[name].limits.kernel(*args))


def run(operator: str, *args) -> Any:
    """Runs ``operator`` on the backend in use, or else on the best one that can."""
    name, answers = _choose(operator, args)
    if not answers[name].serves:
        raise RuntimeError(f'{operator}: the backend {name!r} is in use, but {answers[name].reason}')
    if name == 'reference':
        for other, answer in answers.items():
            if answer.verdict is Verdict.ABSENT:
                _notice_absence(other)
    if _log.isEnabledFor(logging.DEBUG):
        _log_choice(operator, name, answers)
    return _implementations[operator][name].run(*args)


def is_compiled(operator: str, *args) -> bool:
    """Whether a call of ``operator`` gets a compiled kernel, here and now; says nothing and raises nothing."""
    name, answers = _choose(operator, args)
    return _implementations[operator][name].is_compiled and answers[name].serves


def generation() -> int:
    """Changes whenever an implementation is registered or exchanged, or another kernel is in use.

    So that nobody keeps a choice from before.
    """
    return _implementations.generation + kernel_table.generation()


def _choose(operator: str, args: tuple) -> tuple[str, dict[str, Answer]]:
    """The backend for a call, and the answers of those that were considered: the one in use, or the best ones."""
    known, name = _implementations[operator], requested()
    if name != 'auto':
        name = name if name in known else 'reference'
        return name, {name: known[name].answer(*args)}
    answers = {}
    for name, implementation in known.items():
        answers[name] = implementation.answer(*args)
        if answers[name].verdict is Verdict.CAN_RUN:
            break
    return name, answers


def _log_choice(operator: str, name: str, answers: Mapping[str, Answer]) -> None:
    """Logs at debug level what has not been logged yet: a network makes the same choice thousands of times."""
    in_use = requested()
    if in_use == 'auto':
        others = [(other, answer.reason) for other, answer in answers.items() if other != name]
        why = ''.join(f'; not on the backend {other!r}, because {reason}' for other, reason in others)
        message = f'{operator}: on the backend {name!r}{why}'
    elif in_use == name:
        message = f'{operator}: on the backend {name!r}, which is in use'
    else:
        message = f'{operator}: on the reference; the backend {in_use!r}, which is in use, does not have it'
    if message not in _logged:
        if len(_logged) >= _MOST_LOGGED:
            _logged.clear()
        _logged.add(message)
        _log.debug(message)


def _notice_absence(name: str) -> None:
    """Warns once that the reference serves calls because the kernel of a backend is not installed."""
    if reason := missing_library():
        _warn_once(f'{reason}. The slower reference operators are used.')
    elif name == 'cpu':  # a build without CUDA is a choice
        _warn_once(
            f'the compiled operators are of another version of icconv_mm and lack some kernels; re{REBUILD}. '
            'The slower reference operators are used instead of those.'
        )


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)


def _checked(name: str, source: str) -> str:
    if name != 'auto' and name not in BACKENDS:
        raise ValueError(f'{source}: no backend {name!r}; there are {", ".join(("auto", *BACKENDS))}')
    return name
