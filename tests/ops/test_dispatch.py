import importlib.machinery
import re
import subprocess
import sys
import warnings

import pytest
import torch
from inception_calls import Call, per_run

from icconv_mm.ops import (
    backends,
    dispatch,
    explain,
    inception_conv2d,
    inception_conv2d_relu,
    mixture_attention,
    pyconv2d,
    use_backend,
    window_attention,
)
from icconv_mm.patterns import DilationPattern

CALL = Call(torch.ones(1, 4, 5, 5), torch.ones(6, 4, 3, 3), None, [(4, 1, 1), (2, 2, 2)], 1, 1)
ARGS = (CALL.x, CALL.weight, None, (4, 1, 1, 2, 2, 2), 1, 1)
compiled = pytest.mark.skipif(not backends()['cpu'], reason=backends()['cpu'].reason)


@pytest.fixture
def no_library(choice):
    """As if the package had been installed without a compiler."""
    choice.lose_library('icconv_mm was installed without compiled operators')
    choice.forget()


def test_lists_backends_with_reasons():
    statuses = backends()
    assert list(statuses) == ['cpu', 'cuda', 'reference']
    assert statuses['reference'] and all(
        isinstance(status.reason, str) and status.reason for status in statuses.values()
    )
    assert bool(statuses['cuda']) <= torch.cuda.is_available()


def test_context_manager_is_nested_and_undone():
    assert dispatch.requested() == 'auto'
    with use_backend('reference'):
        assert dispatch.requested() == 'reference'
        with use_backend('auto'):
            assert dispatch.requested() == 'auto'
        assert dispatch.requested() == 'reference'
    with pytest.raises(KeyError), use_backend('reference'):
        raise KeyError
    assert dispatch.requested() == 'auto'


def test_environment_variable(monkeypatch):
    monkeypatch.setenv('ICCONV_MM_BACKEND', 'reference')
    assert dispatch.requested() == 'reference'
    with use_backend('auto'):
        assert dispatch.requested() == 'auto'
    monkeypatch.setenv('ICCONV_MM_BACKEND', 'gpu')
    with pytest.raises(ValueError, match="ICCONV_MM_BACKEND: no backend 'gpu'; there are auto, cpu, cuda, reference"):
        inception_conv2d(*CALL)


def test_unknown_name():
    with pytest.raises(ValueError, match="no backend 'fast'"), use_backend('fast'):
        pass


def test_a_backend_in_use_says_why_not():
    with use_backend('cuda'), pytest.raises(RuntimeError, match="'cuda' is in use, but it needs tensors on a CUDA"):
        inception_conv2d(*CALL)
    with use_backend('cpu'), pytest.raises(RuntimeError, match=r'needs float32 .* got torch\.float64'):
        inception_conv2d(*CALL.to(torch.float64))


@pytest.mark.parametrize('pattern', [CALL.pattern, iter(CALL.pattern), DilationPattern.of(CALL.pattern), list(ARGS[3])])
def test_explain_takes_what_the_function_takes(choice, pattern):
    seen = []
    choice.offer('inception_conv2d', None, refusal=lambda *args: seen.append(args))
    explain('inception_conv2d', CALL.x, CALL.weight, None, pattern)
    explain('inception_conv2d', CALL.x, weight=CALL.weight, bias=None, pattern=CALL.pattern, stride=2)
    assert [args[2:] for args in seen] == [(None, (4, 1, 1, 2, 2, 2), stride, 1) for stride in (1, 2)]


@pytest.mark.parametrize(
    ('function', 'args'),
    [
        (inception_conv2d, (*CALL[:3], [(3, 1, 1)])),
        (inception_conv2d, (CALL.x[0], *CALL[1:4])),
        (inception_conv2d, (*CALL[:3], [(0, 1, 1)])),
        (inception_conv2d_relu, (*CALL[:3], [(3, 1, 1)])),
        (pyconv2d, (CALL.x, CALL.weight, None, [1])),
        (pyconv2d, (CALL.x, [CALL.weight], None, 1)),
        (pyconv2d, (CALL.x, [CALL.weight], None, [2])),
        (mixture_attention, (CALL.x, CALL.x, CALL.x, torch.ones(1, 2))),
        (window_attention, (CALL.x, CALL.x, CALL.x, torch.ones(1, 2), 4)),
    ],
)
def test_explain_raises_what_the_call_raises(function, args):
    with pytest.raises(ValueError) as raised:
        function(*args)
    with pytest.raises(ValueError, match=f'^{re.escape(str(raised.value))}$'):
        explain(function.__name__, *args)


def test_without_the_library_one_notice_and_the_reference(no_library):
    assert not backends()['cpu']
    with pytest.warns(UserWarning, match='installed without compiled operators.*reference') as caught:
        out = inception_conv2d(*CALL)
    assert len(caught) == 1 and '\n' not in str(caught[0].message)
    torch.testing.assert_close(out, per_run(CALL))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        inception_conv2d(*CALL)
    with use_backend('cpu'), pytest.raises(RuntimeError, match='installed without compiled operators'):
        inception_conv2d(*CALL)


def test_a_library_that_does_not_load(choice, tmp_path):
    """A build for another torch is named, with the way out, and does not stop the package."""
    package = tmp_path / 'icconv_mm'
    (package / 'ops').mkdir(parents=True)
    assert f'no compiled operators for torch {torch.__version__}; build it with `pip' in choice.find_library(package)
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    other = package / f'_C_torch1_13{suffix}'
    other.touch()
    assert f'found only {other.name}, built for another torch or Python; build it' in choice.find_library(package)
    major, minor = torch.__version__.split('.')[:2]
    library = package / f'_C_torch{major}_{minor}{suffix}'
    library.write_bytes(b'not a library')
    reason = choice.find_library(package)
    assert library.name in reason and torch.__version__ in reason and 'rebuild it with `pip' in reason
    assert '\n' not in reason


def test_backward_keeps_the_backend_of_the_forward_pass(choice):
    """Also on autograd's own threads, which do not inherit the context."""
    seen = []
    for name in ('inception_conv2d_grad_input', 'inception_conv2d_grad_weight'):
        run = choice.operators[name]['reference'].run
        choice.replace(name, reference=lambda *args, run=run: seen.append(dispatch.requested()) or run(*args))
    x = CALL.x.clone().requires_grad_()
    with use_backend('reference'):
        out = inception_conv2d(x, *CALL[1:])
    out.sum().backward()
    assert seen == ['reference']


@compiled
def test_compiled_operators_use_the_threads_of_torch():
    """There is one OpenMP runtime in a process with nothing else: a second one would have threads of its own."""
    assert backends()['cpu'].reason == 'compiled operators loaded'
    code = (
        'import torch\n'
        f'torch.ops.load_library({str(next(path for path in torch.ops.loaded_libraries if "_C_torch" in path))!r})\n'
        'print(open("/proc/self/maps").read())'
    )
    maps = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    runtimes = {line.split()[-1] for line in maps.splitlines() if re.search(r'/lib(gomp|iomp5|omp)[-.\w]*$', line)}
    assert len(runtimes) == 1, runtimes
