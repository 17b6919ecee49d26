"""The gradients of convolutions that are linear in the input and in the weights."""

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from icconv_mm.ops.dispatch import backend
from icconv_mm.utils.torch_private import below_autograd


class TrilinearForm(NamedTuple):
    """The three operators; ``weights`` is a sequence, ``settings`` what follows the tensors.

    With the trilinear form T(x, w, g) = <g, conv(x, w)>, the convolution is the partial derivative of T for g, the
    gradient for its input the one for x, the gradient for its weights the one for w. Each is a function of the two
    other arguments, and its own gradients are again partial derivatives of T, with the outer gradient in the place of
    the argument that it lacks. So three operators are enough for derivatives of any order.
    """

    output: Callable  # (x, weights, settings, bias=None) -> g
    grad_input: Callable  # (g, weights, size of x, settings) -> x
    grad_weight: Callable  # (g, x, channels and kernel of each of the weights, settings) -> weights


def derivative(
    form: TrilinearForm,
    settings: Sequence,
    *,
    x: Tensor | None = None,
    grad: Tensor | None = None,
    weights: Sequence[Tensor] = (),
    bias: Tensor | None = None,
    sizes: Sequence[int] = (),
) -> Tensor | tuple[Tensor, ...]:
    """Whichever of x, grad and weights is left out, by the operator that gives it: the gradient rule of all three.

    Args:
        form: The three operators.
        settings: What follows the tensors in a call.
        x, grad, weights: Two of the three.
        bias: ``[C_out]``, added to the output, or None.
        sizes: Sizes of the result, where it is x or weights.
    """
    return _Derivative.apply(form, settings, sizes, bias, x, grad, *weights)


class _Derivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, form, settings, sizes, bias, x, grad, *weights):
        ctx.save_for_backward(x, grad, *weights)
        ctx.save_for_forward(x, grad, *weights)
        ctx.form, ctx.settings, ctx.sizes, ctx.backend = form, settings, sizes, backend.requested()
        with below_autograd():
            return _Derivative._of_the_third(form, settings, sizes, bias, x, grad, weights)

    @staticmethod
    def _of_the_third(form, settings, sizes, bias, x, grad, weights):
        if grad is None:
            return form.output(x, weights, settings, bias)
        if x is None:
            return form.grad_input(grad, weights, sizes, settings)
        return tuple(form.grad_weight(grad, x, sizes, settings))

    @staticmethod
    def jvp(ctx, *tangents):
        """The form is linear in each argument: a sum with one argument after the other exchanged for its tangent."""
        _, _, _, d_bias, d_x, d_grad, *d_weights = tangents
        x, grad, *weights = ctx.saved_tensors
        exchanged = [] if d_x is None else [(d_x, grad, weights)]
        exchanged += [] if d_grad is None else [(x, d_grad, weights)]
        if any(each is not None for each in d_weights):
            moved = [torch.zeros_like(weight) if d is None else d for weight, d in zip(weights, d_weights)]
            exchanged.append((x, grad, moved))
        terms = [_Derivative._of_the_third(ctx.form, ctx.settings, ctx.sizes, None, *each) for each in exchanged]
        if d_bias is not None:
            terms.append(d_bias[:, None, None])
        return tuple(map(sum, zip(*terms))) if isinstance(terms[0], tuple) else sum(terms)

    @staticmethod
    def backward(ctx, *outer):
        x, grad, *weights = ctx.saved_tensors
        if grad is None:
            (grad,) = outer
        elif x is None:
            (x,) = outer
        else:
            weights = outer
        _, _, _, need_bias, need_x, need_grad, *need_weights = ctx.needs_input_grad
        to_x = to_grad = to_bias = None
        to_weights = [None] * len(need_weights)
        # autograd may run this on another thread, which knows nothing of the caller's `use_backend`
        with backend.use_backend(ctx.backend):
            if need_x:
                to_x = ctx.form.grad_input(grad, weights, x.shape[2:], ctx.settings)
            if need_grad:
                to_grad = ctx.form.output(x, weights, ctx.settings)
            if any(need_weights):
                to_weights = ctx.form.grad_weight(grad, x, shapes_of(weights), ctx.settings)
        if need_bias:
            to_bias = grad.sum((0, 2, 3))
        return None, None, None, to_bias, to_x, to_grad, *to_weights


def shapes_of(weights: Sequence[Tensor]) -> list[int]:
    """Three numbers for each of the weights: its channels and its kernel."""
    return [number for weight in weights for number in (weight.shape[0], *weight.shape[2:])]


def flops(output: Sequence[int], weights: Sequence[Sequence[int]]) -> int:
    """Operations of each of the three operators, two per multiplication, by the shapes of output and weights."""
    return 2 * output[0] * prod(output[2:]) * sum(map(prod, weights))
