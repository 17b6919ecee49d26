import functools
import itertools

import pytest
import torch
from random_weights import normal
from torch import Tensor, nn

from icconv_mm.layers import GroundingTransformer, RenderingTransformer, SelfTransformer
from icconv_mm.ops import tensors


def in_float32(equations):
    """Leaves autocast, with the tensors among the arguments in float32 if they are in bfloat16."""

    @functools.wraps(equations)
    def call(*args):
        with torch.autocast('cpu', enabled=False):
            return equations(*(x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x for x in args))

    return call


def positions(x: Tensor, parts: int) -> Tensor:
    """[B, C, H, W] -> [B, N, H W, C / N]: the features of each position, divided into N parts."""
    batch, channels = x.shape[:2]
    return x.reshape(batch, parts, channels // parts, -1).transpose(2, 3)


def mixture_weights(module, keys: Tensor) -> Tensor:
    """pi_n = softmax_n(w_n^T mean of k), below equation 2; keys [B, C, h, w]."""
    return torch.softmax(keys.mean((2, 3)) @ module.mixture.weight.T, dim=1)


def f_mos(scores: Tensor, pi: Tensor) -> Tensor:
    """Equation 2: scores [B, N, i, j], pi [B, N] -> weights [B, i, j]."""
    exponentials = torch.exp(scores - scores.amax(-1, keepdim=True).detach())
    return (pi[:, :, None, None] * exponentials / exponentials.sum(-1, keepdim=True)).sum(1)


def f_mul(weights: Tensor, values: Tensor, size) -> Tensor:
    """The last line of equation 1, with values [B, C, h, w], as a map [B, C, *size]."""
    out = weights @ values.flatten(2).transpose(1, 2)
    return out.transpose(1, 2).reshape(*values.shape[:2], *size)


def self_transformer(module, x: Tensor) -> Tensor:
    """Equation 3, with the dot product, divided by sqrt(d), for the similarity."""
    pooled = module.pool(x)
    q, k, v = module.key_conv(x), module.key_conv(pooled), module.value_conv(pooled)
    return x + module.out_conv(_all_to_all_scaled(module, q, k, v))


@in_float32
def _all_to_all_scaled(module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q_parts, k_parts = positions(q, module.mixtures), positions(k, module.mixtures)
    scores = torch.einsum('bnid,bnjd->bnij', q_parts, k_parts) / q_parts.shape[-1] ** 0.5
    return f_mul(f_mos(scores, mixture_weights(module, k)), v, q.shape[2:])


def scores_of(module, q: Tensor, k: Tensor) -> Tensor:
    """Similarity of q [..., d] and k [..., d]: equation 4, or those of non-local networks."""
    if module.similarity == 'euclidean':
        return -(q - k).square().sum(-1)
    return (q * k).sum(-1) / (q.shape[-1] ** 0.5 if module.similarity == 'embedded' else 1)


def grounding_transformer(module, fine: Tensor, coarse: Tensor) -> Tensor:
    """Equation 5; with a window, of every position on its own (section 3.3, locality-constrained)."""
    q, k, v = module.query_conv(fine), module.key_conv(coarse), module.value_conv(coarse)
    return module.out_conv((_all_to_all if module.window is None else _in_windows)(module, q, k, v))


@in_float32
def _all_to_all(module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    pi = mixture_weights(module, k)
    q_parts, k_parts = positions(q, module.mixtures), positions(k, module.mixtures)
    scores = scores_of(module, q_parts[:, :, :, None], k_parts[:, :, None])
    if module.similarity == 'dot':
        weights = (pi[:, :, None, None] * scores / scores.shape[-1]).sum(1)
    else:
        weights = f_mos(scores, pi)
    return f_mul(weights, v, q.shape[2:])


@in_float32
def _in_windows(module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    pi = mixture_weights(module, k)
    (batch, _, height, width), (rows, columns), half = q.shape, k.shape[2:], module.window // 2
    out = q.new_zeros(batch, v.shape[1], height, width)
    for y in range(height):
        for x in range(width):
            # the coarse cell in which the centre of the position lies
            row, column = int((y + 0.5) * rows / height), int((x + 0.5) * columns / width)
            keys, values = [], []
            for i in range(row - half, row + half + 1):
                for j in range(column - half, column + half + 1):
                    inside = 0 <= i < rows and 0 <= j < columns
                    keys.append(k[:, :, i, j] if inside else torch.zeros_like(k[:, :, 0, 0]))
                    values.append(v[:, :, i, j] if inside else torch.zeros_like(v[:, :, 0, 0]))
            keys = torch.stack(keys, 2).reshape(batch, module.mixtures, -1, len(keys)).transpose(2, 3)
            query = q[:, :, y, x].reshape(batch, module.mixtures, 1, -1)
            scores = scores_of(module, query, keys)[:, :, None]
            if module.similarity == 'dot':
                weights = (pi[:, :, None, None] * scores / scores.shape[-1]).sum(1)
            else:
                weights = f_mos(scores, pi)
            out[:, :, y, x] = (weights @ torch.stack(values, 1))[:, 0]
    return out


def rendering_transformer(module, coarse: Tensor, fine: Tensor) -> Tensor:
    """Equation 6, with Q the coarse level, K and V the fine one."""
    w = module.weight_conv(fine.mean((2, 3))[:, :, None, None])
    q_att = coarse * w
    v_dow = module.value_convs(fine)
    return module.out_conv(module.query_conv(q_att) + v_dow)


GN = {'type': 'GN', 'num_groups': 4}
SIMILARITIES = ('euclidean', 'embedded', 'dot')


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Workspace for a few rows, so that every call has several blocks and a last one that is smaller."""
    monkeypatch.setitem(tensors.WORKSPACE, 'cpu', 1)


def self_case(**settings):
    return normal(SelfTransformer(8, **settings)), self_transformer, [(2, 8, 9, 7)]


def grounding_case(fine=(9, 7), coarse=(5, 4), **settings):
    module = normal(GroundingTransformer(8, **settings))
    return module, grounding_transformer, [(2, 8, *fine), (2, 8, *coarse)]


def rendering_case(ratio=2, **settings):
    size = (-(-9 // ratio), -(-7 // ratio))
    return normal(RenderingTransformer(8, ratio, **settings)), rendering_transformer, [(2, 8, *size), (2, 8, 9, 7)]


CASES = {
    'self': lambda: self_case(norm_cfg=GN),
    'self, one softmax': lambda: self_case(mixtures=1),
    'self, four, all keys': lambda: self_case(mixtures=4, pool_keys=False),
    'grounding': lambda: grounding_case(norm_cfg=GN),
    'grounding, one softmax': lambda: grounding_case(mixtures=1, inner_channels=6),
    'grounding, equal sizes': lambda: grounding_case(coarse=(9, 7)),
    **{f'grounding, {kind}': lambda kind=kind: grounding_case(similarity=kind) for kind in SIMILARITIES[1:]},
    **{
        f'window {window}, {kind}, {coarse}': lambda kind=kind, window=window, coarse=coarse: grounding_case(
            similarity=kind, window=window, coarse=coarse, mixtures=2
        )
        for kind, window, coarse in itertools.product(SIMILARITIES, (1, 3), ((9, 7), (5, 4)))
    },
    'window of the whole map': lambda: grounding_case(window=3, coarse=(3, 3), norm_cfg=GN),
    'rendering': lambda: rendering_case(norm_cfg=GN),
    'rendering, equal sizes': lambda: rendering_case(ratio=1),
    'rendering, three levels up': lambda: rendering_case(ratio=8, norm_cfg={'type': 'BN'}),
}


def both(module, literal, inputs, autocast=False):
    """Outputs and gradients (of inputs, then of parameters) of a transformer and of its literal form."""
    results = []
    for call in (lambda *args: module(*args), lambda *args: literal(module, *args)):
        leaves = [x.clone().requires_grad_() for x in inputs]
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
            out = call(*leaves)
        outer = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
        grads = torch.autograd.grad(out, [*leaves, *module.parameters()], outer)
        results.append((out, grads))
    return results


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=str)
@pytest.mark.parametrize('case', CASES)
def test_equals_the_equations(case, dtype, tolerance):
    module, literal, shapes = CASES[case]()
    module.to(dtype)
    (out, grads), (expected, expected_grads) = both(module, literal, [torch.randn(s, dtype=dtype) for s in shapes])
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(grads, expected_grads, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('case', CASES)
def test_equals_the_equations_under_autocast(case):
    """Convolutions in bfloat16, equations in float32; differences relative to the largest value."""
    module, literal, shapes = CASES[case]()
    (out, grads), (expected, expected_grads) = both(module, literal, [torch.randn(s) for s in shapes], autocast=True)
    assert out.dtype in (torch.bfloat16, torch.float32)
    for got, want in zip((out, *grads), (expected, *expected_grads), strict=True):
        assert (got.float() - want).abs().max() <= 2e-2 * max(1, want.abs().max())


@pytest.mark.parametrize(
    ('module', 'sizes'),
    [
        (SelfTransformer(4), [(4, 3)]),
        (GroundingTransformer(4, mixtures=2), [(4, 3), (2, 2)]),
        (GroundingTransformer(4, mixtures=2, similarity='dot'), [(4, 3), (2, 2)]),
        (GroundingTransformer(4, mixtures=2, window=3), [(4, 5), (3, 3)]),
        (GroundingTransformer(4, mixtures=2, window=3), [(3, 3), (3, 3)]),
        (RenderingTransformer(4), [(2, 2), (4, 3)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gradcheck(module, sizes):
    normal(module).double()
    inputs = [torch.randn((1, 4, *size), dtype=torch.float64, requires_grad=True) for size in sizes]
    assert torch.autograd.gradcheck(module, inputs)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('size', [1.0, 1e3])
@pytest.mark.parametrize('window', [None, 3])
@pytest.mark.parametrize('similarity', SIMILARITIES)
def test_large_values_in_half_precision(similarity, window, size, dtype):
    """|q - k|^2 of values of 1e3 is far beyond float16; finite input gives finite output and gradients."""
    module = normal(GroundingTransformer(8, similarity=similarity, window=window))
    for part in ('query', 'key', 'value'):  # the projections return their input, so that values are as large as it
        weight = getattr(module, f'{part}_conv').weight
        nn.init.zeros_(weight), nn.init.eye_(weight.data[:, :4, 0, 0])
        nn.init.zeros_(getattr(module, f'{part}_conv').bias)
    fine, coarse = (size * torch.randn(1, 8, *s) for s in ((6, 5), (3, 3)))
    expected = grounding_transformer(module, fine, coarse)
    if similarity == 'dot':  # whose output is as large as the product of three inputs
        fine, coarse, expected = fine / size, coarse / size, expected / size**3
    try:
        module.to(dtype)
        inputs = [x.to(dtype).requires_grad_() for x in (fine, coarse)]
        out = module(*inputs)
    except RuntimeError as error:
        if 'not implemented' in str(error):
            pytest.skip(f'this torch has no convolution of {dtype} on a CPU')
        raise
    out.float().sum().backward()
    assert out.isfinite().all()
    assert all(x.grad.isfinite().all() for x in inputs)
    if size == 1:
        assert (out.float() - expected).abs().max() <= 2e-2 * max(1, expected.abs().max())


def test_large_offsets_keep_the_digits():
    """Distances do not change when all features move by 1e3, and neither do the float32 results."""
    module = normal(GroundingTransformer(8, mixtures=1)).double()
    fine, coarse = torch.randn(1, 8, 9, 7), torch.randn(1, 8, 5, 4)
    module.query_conv.weight.data.copy_(module.key_conv.weight)
    module.query_conv.bias.data.copy_(module.key_conv.bias)
    expected = module(fine.double(), coarse.double())
    module.float()
    module.query_conv.bias.data += 1e3
    module.key_conv.bias.data += 1e3
    torch.testing.assert_close(module(fine, coarse).double(), expected, rtol=1e-3, atol=1e-3)


def test_a_grounding_transformer_starts_at_zero_and_learns():
    module = GroundingTransformer(8, norm_cfg=GN)
    fine, coarse = torch.randn(2, 8, 9, 7), torch.randn(2, 8, 5, 4)
    out = module(fine, coarse)
    assert not out.any()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        (module(fine, coarse) - fine).square().mean().backward()
        optimizer.step()
    assert module(fine, coarse).any()
    assert all(parameter.grad.any() for name, parameter in module.named_parameters() if 'query' not in name)


@pytest.mark.parametrize('norm_cfg', [None, GN, {'type': 'GN', 'num_groups': 8}, {'type': 'BN'}, {'type': 'IN'}])
def test_one_image_trains(norm_cfg):
    out = RenderingTransformer(8, 2, norm_cfg)(torch.randn(1, 8, 3, 3), torch.randn(1, 8, 6, 5))
    assert out.shape == (1, 8, 3, 3) and out.isfinite().all()


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: SelfTransformer(8, 3), 'self-transformer: 8 channels cannot be divided into 3 mixtures'),
        (lambda: GroundingTransformer(8, similarity='cosine'), "one of euclidean, embedded, dot, got 'cosine'"),
        (lambda: GroundingTransformer(8, window=4), 'window must be odd and positive, got 4'),
        (lambda: RenderingTransformer(8, 3), r'must be 1, 2, 4, \.\.\., got 3'),
        (
            lambda: GroundingTransformer(8, window=5)(torch.randn(1, 8, 9, 9), torch.randn(1, 8, 5, 4)),
            'window of 5 is larger than the coarse map of 5 x 4',
        ),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
