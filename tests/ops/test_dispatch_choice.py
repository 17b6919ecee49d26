"""The choice of a backend under threads, torch.compile and autocast; what it says, and how often."""

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from inception_calls import Call, per_run

from icconv_mm.layers import ICConv2d
from icconv_mm.ops import Answer, Verdict, dispatch, explain, inception_conv2d, pyconv2d, use_backend

RUNS = [(4, 1, 1), (2, 2, 2)]
CALL = Call(torch.randn(1, 4, 5, 5), torch.randn(6, 4, 3, 3), None, RUNS, 1, 1)
ARGS = (CALL.x, CALL.weight, None, (4, 1, 1, 2, 2, 2), 1, 1)


@pytest.fixture
def supported(choice) -> list[str]:
    """The backends that serve calls, each of which can, in the order of the calls."""
    seen, reference = [], choice.operators['inception_conv2d']['reference']

    def kernel(name):
        return lambda *args: seen.append(name) or reference.run(*args)

    choice.replace('inception_conv2d', cpu=kernel('cpu'), reference=kernel('reference'))
    return seen


@pytest.fixture
def log(caplog, choice):
    """What is logged from now on, as if nothing had been before."""
    choice.forget()
    caplog.set_level(logging.DEBUG, 'icconv_mm')
    return caplog


def test_explanation_names_the_chosen_backend(supported):
    answers = explain('inception_conv2d', *ARGS)
    assert all(answers.values()) and list(answers) == ['cpu', 'reference'] and answers.chosen == 'cpu'
    assert repr(answers) == "Explanation(chosen='cpu', {'cpu': 'can run', 'reference': 'can run'})"
    with use_backend('reference'):
        assert explain('inception_conv2d', *ARGS).chosen == 'reference'
    with use_backend('cuda'):  # which has no kernel: the reference runs
        assert explain('inception_conv2d', *ARGS).chosen == 'reference'
        inception_conv2d(*CALL)
    assert supported == ['reference']


def test_a_choice_is_logged_once(supported, log):
    for _ in range(3):
        inception_conv2d(*CALL)
    assert [record.getMessage() for record in log.records] == ["inception_conv2d: on the backend 'cpu'"]
    assert log.records[0].levelno == logging.DEBUG
    with use_backend('reference'):
        inception_conv2d(*CALL)
        inception_conv2d(*CALL)
    assert len(log.records) == 2 and "'reference', which is in use" in log.records[1].getMessage()


def test_the_log_says_why_not_the_others(log):
    inception_conv2d(*CALL.to(torch.float64))
    inception_conv2d(*CALL.to(torch.float64))
    (message,) = [record.getMessage() for record in log.records]
    assert message.startswith(
        "inception_conv2d: on the backend 'reference'; not on the backend 'cpu', because it needs"
    )
    assert "not on the backend 'cuda', because it needs tensors on a CUDA device, got cpu" in message


def test_refusal_absence_and_objection_are_asked_in_one_order(choice):
    """So that asking, explaining and choosing say the same of a call."""
    reasons = {'refusal': lambda *_: 'refused', 'absence': 'absent', 'objection': lambda *_: 'slow'}
    expected = [
        (3, Answer(Verdict.REFUSED, 'refused'), 'refused'),
        (2, Answer(Verdict.ABSENT, 'absent'), 'absent'),
        (1, Answer(Verdict.NOT_ADVISED, 'slow'), 'can run within use_backend: slow'),
        (0, Answer(Verdict.CAN_RUN), 'can run'),
    ]
    for left, answer, said in expected:
        choice.offer('inception_conv2d', lambda *_: 'compiled', **dict(list(reasons.items())[3 - left :]))
        status = explain('inception_conv2d', *ARGS)['cpu']
        assert status == answer and str(status) == said
        assert bool(status) == (left == 0) and status.supports == (left < 2)
        with use_backend('cpu'):
            if left > 1:
                with pytest.raises(RuntimeError, match=f"'cpu' is in use, but {said}"):
                    dispatch.run('inception_conv2d', *ARGS)
            else:
                assert dispatch.run('inception_conv2d', *ARGS) == 'compiled'


def test_a_library_without_a_kernel_is_one_warning(choice):
    """The extension is there, but older than the package."""
    choice.lose_library(None)
    reason = dispatch.missing_kernel('no_such_operator', 'cpu')
    assert reason.startswith('the compiled operators have no cpu kernel of no_such_operator; rebuild it with `pip')
    choice.offer('inception_conv2d', lambda *_: None, absence=reason)
    choice.forget()
    with pytest.warns(UserWarning, match='of another version of icconv_mm.*rebuild it with `pip.*reference') as caught:
        out = inception_conv2d(*CALL)
    assert len(caught) == 1
    torch.testing.assert_close(out, per_run(CALL))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        inception_conv2d(*CALL)
        explain('inception_conv2d', *ARGS)


def test_threads_choose_for_themselves(supported):
    """At the same time, one network: what one thread asks for does not concern another."""
    layer = ICConv2d(4, 6, RUNS)
    names = ['cpu', 'reference', 'auto'] * 8

    def run(name):
        with use_backend(name), torch.no_grad():
            outputs = [layer(CALL.x) for _ in range(5)]
            return dispatch.requested(), outputs

    with torch.no_grad(), ThreadPoolExecutor(6) as pool:
        expected = layer(CALL.x)
        supported.clear()
        for name, (requested, outputs) in zip(names, pool.map(run, names), strict=True):
            assert requested == name and all(torch.equal(out, expected) for out in outputs)
    assert supported.count('reference') == 8 * 5 and supported.count('cpu') == 16 * 5
    assert dispatch.requested() == 'auto'


def test_compiled_code_chooses_at_every_call(supported, log):
    layer = ICConv2d(4, 6, RUNS)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    expected = layer(CALL.x)
    for name in ('auto', 'reference', 'cpu'):
        supported.clear()
        with use_backend(name), torch.no_grad():
            torch.testing.assert_close(compiled(CALL.x), expected)
        assert supported == ['cpu' if name == 'auto' else name]


def test_autocast_chooses_by_the_lower_dtype(choice):
    """A kernel is asked about the tensors that it gets."""
    asked = []

    def refusal(x, weight, *_):
        asked.append((x.dtype, weight.dtype))
        return 'no'

    choice.offer('inception_conv2d', lambda *_: None, refusal=refusal)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert inception_conv2d(*CALL).dtype == torch.bfloat16
        with use_backend('reference'):
            assert inception_conv2d(*CALL).dtype == torch.bfloat16
    assert set(asked) == {(torch.bfloat16, torch.bfloat16)}


# --- bad input, which no backend is asked about

X, WEIGHT = torch.ones(1, 4, 5, 6), torch.ones(6, 4, 3, 3)
BAD = [
    ({'x': X.to('meta')}, r'x \[1, 4, 5, 6\] is on meta, weight \[6, 4, 3, 3\] on cpu: expected one device'),
    ({'bias': torch.ones(6, device='meta')}, r'x \[1, 4, 5, 6\] is on cpu, bias \[6\] on meta: expected one device'),
    ({'x': X.double()}, r'x \[1, 4, 5, 6\] has the dtype torch\.float64, weight \[6, 4, 3, 3\] torch\.float32'),
    ({'bias': torch.ones(6).half()}, r'x \[1, 4, 5, 6\] has the dtype torch\.float32, bias \[6\] torch\.float16'),
    (
        {'x': X.int(), 'weight': WEIGHT.int()},
        r'x \[1, 4, 5, 6\] has the dtype torch\.int32, expected .*bfloat16',
    ),
    ({'weight': WEIGHT + 1j}, r'weight \[6, 4, 3, 3\] has the dtype torch\.complex64'),
]


@pytest.mark.parametrize(('changes', 'message'), BAD, ids=range(len(BAD)))
def test_tensors_that_do_not_go_together(changes, message):
    given = {'x': X, 'weight': WEIGHT, 'bias': None, **changes}
    with pytest.raises(ValueError, match=message):
        inception_conv2d(*given.values(), RUNS)
    levels = [given['weight'], torch.ones(4, 2, 5, 5)]
    bias = None if given['bias'] is None else given['bias'].repeat(2)[:10]
    message = message.replace('weight', 'the weight of level 0').replace(r'bias \[6\]', r'bias \[10\]')
    with pytest.raises(ValueError, match=message):
        pyconv2d(given['x'], levels, bias, [1, 2])


def test_sizes_beyond_32_bits():
    """Shapes are computed in 64 bit; of dilations far beyond the map only the centre tap is left."""
    big = torch.empty(1, 4, 70_000, 70_000, device='meta')
    assert inception_conv2d(big, WEIGHT.to('meta'), None, RUNS).shape == (1, 6, 70_000, 70_000)
    assert pyconv2d(big, [WEIGHT.to('meta'), WEIGHT.to('meta')], None, [1, 1]).numel() == 12 * 70_000**2
    runs = [(3, 2**20, 1), (3, 1, 2**20)]
    with use_backend('reference'):
        out = inception_conv2d(X, WEIGHT, None, runs)
    assert out[0, 0, 2, 2] == 3 * 4 and out[0, 5, 2, 2] == 3 * 4  # one axis sees its neighbours, the other does not
