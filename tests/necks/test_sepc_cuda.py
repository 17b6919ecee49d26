"""SEPC on a CUDA device against the CPU: outputs, gradients and running statistics."""

import copy

import pytest
import torch

from icconv_mm.necks import SEPC

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device'),
]

VARIANTS = {'plain': {}, 'iBN': {'ibn': True}, 'full': {'ibn': True, 'pconv_deform': True, 'lcconv_deform': True}}


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_cuda_is_the_cpu(variant, mode):
    torch.manual_seed(0)
    on_cpu = SEPC(16, 16, 4, **VARIANTS[variant]).train(mode == 'train')
    with torch.no_grad():
        for name, parameter in on_cpu.named_parameters():
            if parameter.ndim == 4:
                parameter.normal_(std=0.01 if 'conv_offset' in name else 0.08)
    on_card = copy.deepcopy(on_cpu).cuda()
    levels = [torch.randn(2, 16, *size) for size in ((33, 40), (17, 20), (9, 10), (5, 5))]
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for model, inputs in ((on_cpu, levels), (on_card, [x.cuda() for x in levels])):
            model.outputs = [x for pair in model(inputs) for x in pair]
            sum(x.square().mean() for x in model.outputs).backward()
    for got, want in zip(on_card.outputs, on_cpu.outputs, strict=True):
        assert (got.cpu() - want).abs().max() <= 1e-4 * want.abs().max()
    # a bias before a norm has the gradient zero, of which rounding leaves a trace as large as the others' rounding
    trace = 1e-5 * max(parameter.grad.abs().max() for parameter in on_cpu.parameters())
    for (name, got), want in zip(on_card.named_parameters(), on_cpu.parameters(), strict=True):
        assert (got.grad.cpu() - want.grad).abs().max() <= 1e-3 * want.grad.abs().max() + trace, name
    for (name, got), want in zip(on_card.named_buffers(), on_cpu.buffers(), strict=True):
        torch.testing.assert_close(got.cpu(), want, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f'{name}: {text}')


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast(dtype):
    neck = SEPC(16, 16, 3, **VARIANTS['full']).cuda()
    with torch.autocast('cuda', dtype):
        outputs = neck([torch.randn(2, 16, *size, device='cuda') for size in ((16, 20), (8, 10), (4, 5))])
    assert {x.dtype for pair in outputs for x in pair} == {dtype}
    sum(x.float().square().mean() for pair in outputs for x in pair).backward()
    assert all(p.grad.isfinite().all() for p in neck.parameters())
