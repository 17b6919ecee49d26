"""The choice of the backend that runs a call of an operator.

Below it only torch's own dispatcher chooses, the kernel of a device.
"""

import inspect
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import torch

from icconv_mm.ops.compiled_library import REBUILD, library_module, missing_kernel, missing_library
from icconv_mm.torch_private import in_forward_ad, is_compiling

BACKENDS = ('cpu', 'cuda', 'reference')  # best first
VARIABLE = 'ICCONV_MM_BACKEND'
_log = logging.getLogger(__name__)
_requested: ContextVar[str | None] = ContextVar('icconv_mm_backend', default=None)


# --- for users


class Status(NamedTuple):
    """The availability of a backend; true in a condition if it is available.

    Attributes:
        available: Whether the backend can be used here.
        reason: Message why it is available, or why it is not.

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
        CAN_RUN: It runs the call if no better backend does.
        NOT_ADVISED: It runs the call only within ``use_backend``: another is faster, or nothing was measured.
        REFUSED: It does not support the call.
        ABSENT: It supports the call, but is not installed.

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


class Answer(NamedTuple):
    """The answer of a backend to a call; true in a condition if it can run the call, as a string a message.

    Attributes:
        verdict: The kind of answer.
        reason: Message why it is no better one; empty if the backend can run the call.

    Example:
        >>> x, weight = torch.randn(1, 8, 32, 32), torch.randn(6, 8, 3, 3)
        >>> answer = explain('inception_conv2d', x, weight, None, [(4, 1, 1), (2, 2, 4)])['cuda']
        >>> answer.verdict, bool(answer), str(answer)
        (<Verdict.REFUSED: 'cannot run such a call'>, False, 'it needs tensors on a CUDA device, got cpu')
    """

    verdict: Verdict
    reason: str = ''

    @property
    def supports(self) -> bool:
        """Whether the backend runs the call within ``use_backend``."""
        return self.verdict in (Verdict.CAN_RUN, Verdict.NOT_ADVISED)

    def __bool__(self) -> bool:
        return self.verdict is Verdict.CAN_RUN

    def __str__(self) -> str:
        if self.verdict is Verdict.NOT_ADVISED:
            return f'{self.verdict.value}: {self.reason}'
        return self.reason or self.verdict.value


class Explanation(dict[str, Answer]):
    """The answers of all backends of an operator, best first.

    Attributes:
        chosen: The backend that runs the call; None if the one in use cannot.

    Example:
        >>> x, weight, pattern = torch.randn(1, 4, 8, 8), torch.randn(4, 4, 3, 3), [(2, 1, 1), (2, 2, 2)]
        >>> with use_backend('reference'):
        ...     explain('inception_conv2d', x, weight, None, pattern).chosen
        'reference'
    """

    def __init__(self, answers: Mapping[str, Answer], chosen: str | None):
        super().__init__(answers)
        self.chosen = chosen

    def __repr__(self) -> str:
        messages = {name: str(answer) for name, answer in self.items()}
        return f'{type(self).__name__}(chosen={self.chosen!r}, {messages})'


def backends() -> dict[str, Status]:
    """Returns the availability of each backend here, with the reason.

    Example:
        >>> backends()['reference']
        Status(available=True, reason='plain PyTorch, always available')
    """
    missing = missing_library()
    with_openmp = getattr(torch.ops.icconv_mm, 'compiled_with_openmp', None)
    threads = '' if with_openmp and with_openmp() else ', without OpenMP: they run on one thread'
    cuda = 'torch sees no CUDA device'
    if torch.cuda.is_available():  # any operator will do
        kernels = [by_backend['cuda'] for by_backend in _kernels.values() if 'cuda' in by_backend]
        reasons = [kernel.absence() for kernel in kernels if kernel.is_compiled]
        cuda = None if None in reasons else reasons[0]
    return {
        'cpu': Status(missing is None, missing or f'compiled operators loaded{threads}'),
        'cuda': Status(cuda is None, cuda or 'compiled operators loaded'),
        'reference': Status(True, 'plain PyTorch, always available'),
    }


def explain(operator: str, *args, **named) -> Explanation:
    """Explains which backend runs a call of ``operator``, and why the others do not.

    A convolution with a single dilation or level is torch's own and uses no backend; the answers are then those of the
    operator.

    Args:
        operator: Name of the operator, e.g. 'inception_conv2d'.
        *args: The arguments of the function of this name; a pattern may also be flat (:attr:`DilationPattern.flat`).
            For an operator without a function, such as a gradient, the operator's arguments.
        **named: Arguments by name.

    Returns:
        A dictionary from backends, best first, to their answers. Its ``chosen`` is the backend that runs the call, with
        ``use_backend`` and the environment variable considered.

    Raises:
        ValueError: If there is no such operator, or the arguments do not fit, with the message of the call.
        TypeError: If the operator has other arguments; the message names them.

    Example:
        >>> x, weight = torch.randn(1, 8, 32, 32).double(), torch.randn(6, 8, 3, 3).double()
        >>> answers = explain('inception_conv2d', x, weight, None, [(4, 1, 1), (2, 2, 4)])
        >>> answers.chosen, str(answers['cpu'])
        ('reference', 'it needs float32 or bfloat16, the same for all, got torch.float64')
    """
    if operator not in _kernels:
        raise ValueError(f'explain: no operator {operator!r}; there are {", ".join(sorted(_kernels))}')
    args = _arguments[operator].of(operator, args, named)
    name, asked = choose(operator, *args)
    answers = {
        kernel_backend: asked[kernel_backend] if kernel_backend in asked else kernel.answer(*args)
        for kernel_backend, kernel in _kernels[operator].items()
    }
    return Explanation(answers, name if asked[name].supports else None)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Runs operators within it on the backend ``name``: 'reference', 'cpu', 'cuda', or 'auto' (the best that can).

    It holds for the current thread, and for the backward passes of results computed within. An operator without any
    implementation on that backend runs its reference. The environment variable ``ICCONV_MM_BACKEND`` does the same for
    a whole process.

    Raises:
        ValueError: If there is no backend of this name.
        RuntimeError: From the operator, if the backend cannot run a call; the message says why.

    Example:
        >>> x, weight = torch.randn(1, 8, 32, 32), torch.randn(6, 8, 3, 3)
        >>> with use_backend('reference'):
        ...     inception_conv2d(x, weight, bias=None, pattern=[(4, 1, 1), (2, 2, 4)]).shape
        torch.Size([1, 6, 32, 32])
    """
    token = _requested.set(_require_backend(name, 'use_backend'))
    try:
        yield
    finally:
        _requested.reset(token)


def requested() -> str:
    """Returns the backend in use: of the innermost ``use_backend``, else of the environment variable, else 'auto'."""
    return _requested.get() or _require_backend(os.environ.get(VARIABLE) or 'auto', VARIABLE)


def _require_backend(name: str, source: str) -> str:
    if name != 'auto' and name not in BACKENDS:
        raise ValueError(f'{source}: no backend {name!r}; there are {", ".join(("auto", *BACKENDS))}')
    return name


def forget_packed_weights() -> int:
    """Frees the packed weights, and the memory for packed inputs, that inference on CPUs keeps.

    Results do not depend on it: a changed weight is packed again in any case.

    Returns:
        The number of packed weights.

    Example:
        >>> forget_packed_weights() >= 0
        True
    """
    return 0 if missing_library() else torch.ops.icconv_mm.forget_packed_weights()


# --- registration of operators


def _nothing(*_) -> None:
    """Returns None: no reason against any call."""


class Kernel(NamedTuple):
    """The implementation of one operator on one backend.

    The first two are functions of the operator's arguments that return a message with the value found, or None.
    :func:`register` sets the rest, unless ``run`` is given: steps of torch, which need no installation.
    """

    refusal: Callable[..., str | None] = _nothing  # why it does not support a call
    objection: Callable[..., str | None] = _nothing  # why it should run a call only within ``use_backend``
    absence: Callable[[], str | None] = _nothing  # why it is not installed
    run: Callable | None = None  # from the operator's arguments to the result
    is_compiled: bool = False  # whether ``run`` is nothing but the operator of the compiled library

    def answer(self, *args) -> Answer:
        """Returns the answer to a call: whether it is supported, installed and advised."""
        if reason := self.refusal(*args):
            return Answer(Verdict.REFUSED, reason)
        if reason := self.absence():
            return Answer(Verdict.ABSENT, reason)
        if reason := self.objection(*args):
            return Answer(Verdict.NOT_ADVISED, reason)
        return Answer(Verdict.CAN_RUN)


class Arguments(NamedTuple):
    """The arguments of an operator's call, for ``explain``."""

    function: Callable  # the function with this signature
    check: Callable[..., None] = _nothing  # raises if the operator's arguments do not fit
    converters: Mapping[str, Callable] = {}  # by argument, from arguments of the function to those of the operator

    def of(self, operator: str, args: tuple, named: Mapping[str, object]) -> tuple:
        """Returns all arguments of a call, as the operator has them; raises the errors of the call."""
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


class _Kernels(dict):
    """The kernels of each operator by backend, best first; counts changes."""

    generation = 0

    def __setitem__(self, operator: str, by_backend: dict[str, Kernel]) -> None:
        super().__setitem__(operator, by_backend)
        self.generation += 1


_kernels = _Kernels()
_arguments: dict[str, Arguments] = {}  # by operator


def register(
    operator: str,
    reference: Callable,
    kernels: Mapping[str, Kernel],
    compiled: Callable | None = None,
    arguments: Arguments | None = None,
) -> None:
    """Registers the implementations of an operator, or of a function with backends outside ``torch.library``.

    The latter is for functions that ``torch.library`` does not suit: its operators cannot both change a buffer and have
    a gradient, and add microseconds to a call.

    Args:
        operator: The name for ``run`` and ``explain``.
        reference: Function that computes the results on tensors of any device.
        kernels: By backend, the rules of the compiled ``<operator>_compiled``, or what runs instead of it.
        compiled: Function that calls it, if that is more than the plain call.
        arguments: The arguments of a call, for ``explain``; None for those of ``compiled`` or else ``reference``.
    """
    name = f'{operator}_compiled'

    def run_compiled(*args):
        return getattr(torch.ops.icconv_mm, name).default(*args)  # exists only after the library is loaded

    def complete(backend: str) -> Kernel:
        if kernels[backend].run is not None:
            return kernels[backend]
        absence = partial(missing_kernel, name, backend)
        return kernels[backend]._replace(run=compiled or run_compiled, absence=absence, is_compiled=compiled is None)

    _arguments[operator] = arguments or Arguments(compiled or reference)
    _kernels[operator] = {backend: complete(backend) for backend in BACKENDS if backend in kernels} | {
        'reference': Kernel(run=reference)
    }


# --- the choice


def choose(operator: str, *args) -> tuple[str, dict[str, Answer]]:
    """Returns the backend for a call, and the answers of those considered: the one in use, or the best ones."""
    kernels, name = _kernels[operator], requested()
    if name != 'auto':
        name = name if name in kernels else 'reference'
        return name, {name: kernels[name].answer(*args)}
    answers = {}
    for name, kernel in kernels.items():
        answers[name] = kernel.answer(*args)
        if answers[name].verdict is Verdict.CAN_RUN:
            break
    return name, answers


def run(operator: str, *args) -> Any:
    """Runs ``operator`` on the backend in use, or else on the best one that can."""
    name, answers = choose(operator, *args)
    if not answers[name].supports:
        raise RuntimeError(f'{operator}: the backend {name!r} is in use, but {answers[name].reason}')
    if name == 'reference':
        for other, answer in answers.items():
            if answer.verdict is Verdict.ABSENT:
                _notice_absence(other)
    if _log.isEnabledFor(logging.DEBUG):
        _log_choice(operator, name, answers)
    return _kernels[operator][name].run(*args)


def is_compiled(operator: str, *args) -> bool:
    """Whether a call of ``operator`` now runs on a compiled kernel; logs nothing and raises nothing."""
    name, answers = choose(operator, *args)
    return _kernels[operator][name].is_compiled and answers[name].supports


def prepared(maker: str, settings: tuple, relu: bool, supported: Callable) -> Callable | None:
    """Returns a function for the calls of a layer from tensors to the result in C++, gradient rule included.

    The operators are defined in Python, and their dispatch and autograd cost some twenty microseconds of the processor,
    more than a small layer takes on a GPU. Here ordinary tensors go to ``csrc/python/fast_path.cpp`` instead. It
    chooses nothing: it calls ``supported`` once for each kind of call (backend requested, device, dtype and sizes, on
    which a choice depends besides the numbers of a layer) and keeps the answer.

    The operator itself runs everything else: calls that are compiled, traced, exported or counted, transforms of
    ``torch.func``, forward-mode gradients, subclasses of tensors, calls that do not fit, and all calls while choices
    are logged.

    Args:
        maker: The function of the library that prepares the calls of a layer.
        settings: A pattern or groups (a tuple), and two numbers: the operator's arguments after the tensors.
        relu: Whether a ReLU follows; such an operator has no gradient.
        supported: Function ``(relu, settings, x, weights, bias)``: which passes of a call run on compiled kernels.

    Returns:
        A function ``(x, weights, bias, requested())`` of unchecked tensors, which returns None for a call that the
        operator itself must run; None if all calls are such.
    """
    # first the check that dynamo evaluates, so it traces none of the rest
    if is_compiling() or in_forward_ad() or _log.isEnabledFor(logging.DEBUG):
        return None
    try:
        return _prepared(maker, settings, relu, supported, _kernels.generation)
    except TypeError:  # no numbers, or numbers above 64 bits: the operator raises the error
        return None


@lru_cache(maxsize=4096)  # layers of a process
def _prepared(maker: str, settings: tuple, relu: bool, supported: Callable, generation: int) -> Callable | None:
    module = library_module()
    if module is None:
        return None
    return getattr(module, maker)(list(settings[0]), *settings[1:], relu, partial(supported, relu, settings))


# --- logging of choices

_logged: set[str] = set()
_MOST_LOGGED = 1000  # reasons contain numbers of the calls


def _log_choice(operator: str, name: str, answers: Mapping[str, Answer]) -> None:
    """Logs each choice once at debug level: a network makes the same choice thousands of times."""
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
    """Warns once that the reference runs calls because the kernel of a backend is not installed."""
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
