"""Integrated batch norm in training mode by compiled kernels.

On a GPU three launches serve all levels, and three their gradients; on the CPU two passes over memory serve each.
:mod:`icconv_mm.layers.integrated_batch_norm` defines what is computed and serves wherever these kernels do not.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from icconv_mm.ops import backend
from icconv_mm.ops.torch_private import below_autograd

DTYPES = {
    'cpu': (torch.float64, torch.float32, torch.float16, torch.bfloat16),
    'cuda': (torch.float32, torch.float16, torch.bfloat16),
}
MAX_LEVELS = 16  # of the table that a launch takes
# compute capabilities of GPUs on which the tests have passed and it was faster than the reference
PROVEN: frozenset[tuple[int, int]] = frozenset()


def register(reference: Callable[..., list[Tensor]]) -> None:
    """Makes it an operator that ``use_backend`` and ``explain`` know; ``reference`` takes its arguments.

    Not by ``define``: an operator of ``torch.library`` cannot both change running statistics and have a gradient.
    """
    limits = {'cpu': backend.Limits(_refusal_of_cpu), 'cuda': backend.Limits(_refusal_of_gpu, _advice)}
    backend.register('integrated_norm', reference, limits, compiled_run)


def compiled_run(
    levels: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    batches: Tensor | None,
    momentum: float | None,
    eps: float,
    relu: bool,
) -> list[Tensor]:
    """The normalised levels, with the arguments of ``integrated_norm_compiled``."""
    statistics = running_mean, running_var, batches
    return list(_IntegratedNorm.apply(weight, bias, statistics, momentum, eps, relu, *levels))


class _IntegratedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, bias, statistics, momentum, eps, relu, *levels):
        run = torch.ops.icconv_mm.integrated_norm_compiled.default
        with below_autograd():
            outputs, mean, inverse = run(list(levels), weight, bias, *statistics, momentum, eps, relu)
        ctx.save_for_backward(weight, bias, mean, inverse, *levels)
        ctx.relu = relu
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        weight, bias, mean, inverse, *levels = ctx.saved_tensors
        grads = [grad.to(level.dtype) for grad, level in zip(grads, levels)]
        run = torch.ops.icconv_mm.integrated_norm_grad_compiled.default
        to_levels, to_weight, to_bias = run(grads, levels, weight, bias, mean, inverse, ctx.relu)
        need_weight, need_bias = ctx.needs_input_grad[:2]
        return to_weight if need_weight else None, to_bias if need_bias else None, None, None, None, None, *to_levels


def _refusal(device: str, levels: Sequence[Tensor], weight, bias, running_mean, *_) -> str | None:
    first = levels[0]
    if first.device.type != device:
        return f'it takes tensors on {"the CPU" if device == "cpu" else "a CUDA device"}, got {first.device}'
    if any(level.dtype != first.dtype or level.device != first.device for level in levels):
        return f'it takes levels of one dtype and device, got {[f"{x.dtype} on {x.device}" for x in levels]}'
    if first.dtype not in DTYPES[device]:
        known = ', '.join(str(dtype).removeprefix('torch.') for dtype in DTYPES[device])
        return f'it takes {known}, got {first.dtype}'
    if any(level.numel() == 0 for level in levels):
        return 'it takes levels that are not empty'
    wanted = torch.float64 if first.dtype == torch.float64 else torch.float32
    for each in (weight, bias, running_mean):
        if each is not None and each.dtype != wanted:
            return f'it takes {str(wanted).removeprefix("torch.")} parameters and statistics, got {each.dtype}'
    return None


def _refusal_of_cpu(*args) -> str | None:
    return _refusal('cpu', *args)


def _refusal_of_gpu(levels: Sequence[Tensor], *args) -> str | None:
    if len(levels) > MAX_LEVELS:
        return f'it takes at most {MAX_LEVELS} levels, got {len(levels)}'
    return _refusal('cuda', levels, *args)


def _advice(levels, *_) -> str | None:
    if torch.cuda.get_device_capability(levels[0].device) not in PROVEN:
        return f'its tests have not passed on a GPU like {levels[0].device}'
    return None
