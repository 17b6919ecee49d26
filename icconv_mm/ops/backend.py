"""Which implementation of an operator a call gets.

Every operator has a reference; compiled backends are optional. A compiled implementation answers one question about a
call, ``refusal(...)``: None if it can serve it, else one sentence that says why not and what it got. Asking for a
backend by name turns that sentence into the exception; choosing automatically turns it into a debug message.
"""

import importlib.machinery
import inspect
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

BACKENDS = ('cpu', 'cuda', 'reference')  # best first
VARIABLE = 'ICCONV_MM_BACKEND'
_SUFFIXES = importlib.machinery.EXTENSION_SUFFIXES
_REBUILD = 'build it with `pip install --no-build-isolation -e .` (needs a C++ compiler)'
_log = logging.getLogger(__name__)
_forced: ContextVar[str | None] = ContextVar('icconv_mm_backend', default=None)


class Status(NamedTuple):
    """Whether a backend is there at all; true in a condition if it is."""

    available: bool
    detail: str

    def __bool__(self) -> bool:
        return self.available


class Kernel(NamedTuple):
    """One implementation of one operator; both functions take the operator's arguments."""

    run: Callable
    refusal: Callable[..., str | None]
    advice: Callable[..., str | None] = lambda *_: None  # a sentence why not to choose it, though it can


class Absence(str):
    """A reason not to run that an installation of the compiled operators would remove."""


_kernels: dict[str, dict[str, Kernel]] = {}
_logged: set[str] = set()
_MOST_LOGGED = 1000  # reasons hold numbers of the calls


def register(
    operator: str,
    backend: str,
    run: Callable,
    refusal: Callable[..., str | None] = lambda *_: None,
    advice: Callable[..., str | None] = lambda *_: None,
) -> None:
    """Makes ``run`` the implementation of ``operator`` on ``backend``; for modules of this package.

    ``refusal`` says why it cannot serve a call, ``advice`` why it should only if it is asked for by name.
    """
    _kernels.setdefault(operator, {})[backend] = Kernel(run, refusal, advice)


def register_compiled(
    operator: str,
    device: str,
    refusal: Callable[..., str | None],
    advice: Callable[..., str | None] = lambda *_: None,
) -> None:
    """Registers the kernel ``<operator>_compiled`` of the compiled library, 'cpu' or 'cuda', with the same arguments.

    It refuses what ``refusal`` refuses, and everything where the library or the kernel is missing.
    """
    name = f'{operator}_compiled'

    def run(*args):
        return getattr(torch.ops.icconv_mm, name)(*args)  # is there only after the library is

    register(operator, device, run, lambda *args: refusal(*args) or compiled(name, device), advice)


def backends() -> dict[str, Status]:
    """The backends that exist and whether each is available here, with the reason."""
    missing = missing_library()
    cuda = compiled('inception_conv2d_compiled', 'cuda')
    if not torch.cuda.is_available():
        cuda = 'torch sees no CUDA device'
    return {
        'cpu': Status(missing is None, missing or _threading()),
        'cuda': Status(cuda is None, cuda or 'compiled operators loaded'),
        'reference': Status(True, 'plain PyTorch, always available'),
    }


def _threading() -> str:
    with_openmp = getattr(torch.ops.icconv_mm, 'compiled_with_openmp', None)
    threads = '' if with_openmp and with_openmp() else ', without OpenMP: they run on one thread'
    return f'compiled operators loaded{threads}'


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within it, operators run on the backend ``name``: 'reference', 'cpu', 'cuda', or 'auto' (the best that can).

    It concerns the current thread, and the backward passes of what was computed within. An operator that has no
    implementation at all on that backend runs its reference. The environment variable ``ICCONV_MM_BACKEND`` does the
    same for a whole process.

    Raises:
        ValueError: If there is no backend of this name.
        RuntimeError: From the operator, if the backend cannot serve a call; the message says why.
    """
    token = _forced.set(_checked(name, 'use_backend'))
    try:
        yield
    finally:
        _forced.reset(token)


def requested() -> str:
    """The name in force: of the innermost ``use_backend``, else of the environment variable, else 'auto'."""
    return _forced.get() or _checked(os.environ.get(VARIABLE) or 'auto', VARIABLE)


class Explanation(dict):
    """For every backend of an operator, best first, 'can run' or the sentence that says why it cannot.

    Attributes:
        chosen: The backend that serves the call; None where one was asked for by name that cannot.
    """

    def __init__(self, answers: dict[str, str], chosen: str | None):
        super().__init__(answers)
        self.chosen = chosen

    def __repr__(self) -> str:
        return f'{type(self).__name__}(chosen={self.chosen!r}, {super().__repr__()})'


def explain(operator: str, *args) -> Explanation:
    """Which backend serves a call of ``operator`` here and now, and why not the others.

    Args:
        operator: Its name, e.g. 'inception_conv2d'.
        *args: The arguments of one call, all of them, as its reference takes them: a pattern is a flat list, the size
            that the gradient of an input has is (height, width).

    Returns:
        A dictionary from backends, best first, to 'can run' or the sentence that says why not. Its ``chosen`` is the
        backend that serves the call, ``use_backend`` and the environment variable considered.

    Raises:
        ValueError: If there is no such operator.
        TypeError: If it takes other arguments; the message says which.
    """
    _check_arguments(operator, args)

    def answer(kernel: Kernel) -> str:
        advice = kernel.advice(*args)
        return kernel.refusal(*args) or (f'can run if asked for by name: {advice}' if advice else 'can run')

    answers = {name: answer(kernel) for name, kernel in _candidates(operator)}
    name = requested()
    if name == 'auto':
        return Explanation(answers, next(each for each in answers if answers[each] == 'can run'))
    if name not in answers:
        return Explanation(answers, 'reference')
    return Explanation(answers, name if answers[name].startswith('can run') else None)


def _check_arguments(operator: str, args: tuple) -> None:
    """That a call has the arguments of the operator: backends look at some of them only, and each at others."""
    if operator not in _kernels:
        raise ValueError(f'explain: no operator {operator!r}; there are {", ".join(sorted(_kernels))}')
    signature = inspect.signature(_kernels[operator]['reference'].run)
    try:
        pattern = signature.bind(*args).arguments.get('pattern', ())
    except TypeError as error:
        names = ', '.join(signature.parameters)
        raise TypeError(f'explain: {error}; {operator} takes {names}') from None
    if not all(isinstance(each, int) for each in pattern):
        raise TypeError(f'explain: pattern must be a flat list of integers (DilationPattern.flat), got {pattern}')


def run(operator: str, *args):
    """Runs ``operator`` on the backend that is forced, or else on the best one that can."""
    name = requested()
    if name == 'auto':
        name = _choose(operator, args)
    elif name in _kernels[operator]:
        if reason := _kernels[operator][name].refusal(*args):
            raise RuntimeError(f'{operator}: the backend {name!r} was asked for, but {reason}')
        _debug(f'{operator}: on the backend {name!r}, which was asked for')
    else:
        _debug(f'{operator}: on the reference; the backend {name!r}, which was asked for, does not have it')
        name = 'reference'
    return _kernels[operator][name].run(*args)


def _choose(operator: str, args: tuple) -> str:
    """The best backend that can and should serve a call; says once which that is, and why not a better one."""
    passed_over = []
    for name, kernel in _candidates(operator):
        reason = kernel.refusal(*args) or kernel.advice(*args)
        if reason is None:
            break
        passed_over.append((name, reason))
    if name == 'reference':
        for _, reason in passed_over:
            if isinstance(reason, Absence):
                _notice(reason)
    if _log.isEnabledFor(logging.DEBUG):
        why = ''.join(f'; not on the backend {other!r}, because {reason}' for other, reason in passed_over)
        _debug(f'{operator}: on the backend {name!r}{why}')
    return name


def _debug(message: str) -> None:
    """Logs at debug level what has not been logged yet: a network makes the same choice thousands of times."""
    if _log.isEnabledFor(logging.DEBUG) and message not in _logged:
        if len(_logged) >= _MOST_LOGGED:
            _logged.clear()
        _logged.add(message)
        _log.debug(message)


@lru_cache(maxsize=1)
def missing_library() -> str | None:
    """Loads the compiled operators once: None if they are there, else one sentence that says why not and what to do."""
    package = Path(__file__).resolve().parents[1]
    major, minor = torch.__version__.split('.')[:2]  # the file's name says for which torch it was built: setup.py
    name = f'_C_torch{major}_{minor}'
    path = next(filter(Path.is_file, (package / f'{name}{suffix}' for suffix in _SUFFIXES)), None)
    if path is None:
        others = ', '.join(sorted(file.name for file in package.glob('_C_torch*')))
        found = f'; found only {others}, built for another torch or Python' if others else ''
        return f'icconv_mm has no compiled operators for torch {torch.__version__}{found}; {_REBUILD}'
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        return f'{path.name} does not load with torch {torch.__version__} ({_first_line(error)}); re{_REBUILD}'
    return None


def compiled(operator: str, device: str) -> str | None:
    """None if the compiled library has a kernel of ``operator`` for this device type, else the sentence why not."""
    if reason := missing_library():
        return Absence(reason)
    if _is_registered(operator, device):
        return None
    return Absence(f'the compiled operators have no {device} kernel of {operator}; re{_REBUILD}')


@cache  # asked at every call of an operator
def _is_registered(operator: str, device: str) -> bool:
    # a library that was built from older sources does not even have the schema
    known = hasattr(torch.ops.icconv_mm, operator)
    return known and torch._C._dispatch_has_kernel_for_dispatch_key(f'icconv_mm::{operator}', device.upper())


@lru_cache(maxsize=1)
def notice_missing_library() -> None:
    """Says once in a process that the reference serves calls because there are no compiled operators."""
    if reason := missing_library():
        warnings.warn(f'{reason}. The slower reference operators are used.', stacklevel=2)


@lru_cache(maxsize=1)
def _notice_stale_library() -> None:
    warnings.warn(
        f'the compiled operators are of another version of icconv_mm and lack some kernels; re{_REBUILD}. '
        'The slower reference operators are used instead of those.',
        stacklevel=2,
    )


def _notice(reason: Absence) -> None:
    if missing_library():
        notice_missing_library()
    elif ' cpu kernel ' in reason:  # a build without CUDA is a choice
        _notice_stale_library()


def _candidates(operator: str) -> list[tuple[str, Kernel]]:
    kernels = _kernels[operator]
    return [(name, kernels[name]) for name in BACKENDS if name in kernels]


def _checked(name: str, source: str) -> str:
    if name != 'auto' and name not in BACKENDS:
        raise ValueError(f'{source}: no backend {name!r}; there are {", ".join(("auto", *BACKENDS))}')
    return name


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
