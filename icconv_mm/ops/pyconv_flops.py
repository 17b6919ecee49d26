"""What torch's FLOP counter needs to know about the pyramidal convolution; see ``inception_conv_flops``."""

from math import prod

from icconv_mm.ops.inception_conv_flops import register_formula


def _flops(out_shape, weight_shapes) -> int:
    """Those of the levels, two per multiplication; from the shapes of the output and of the weights."""
    batch, _, *space = out_shape
    return 2 * batch * prod(space) * sum(map(prod, weight_shapes))


def forward_flops(x, weights, *_, out_shape=None, **__) -> int:
    return _flops(out_shape, weights)


def _grad_input_flops(grad, weights, *_, **__) -> int:
    return _flops(grad, weights)


def _grad_weight_flops(grad, *_, out_shape=None, **__) -> int:
    return _flops(grad, out_shape)


def register(forward, grad_input, grad_weight) -> None:
    """Tells torch the FLOPs of ``torch.ops.icconv_mm.pyconv2d`` and of its gradients."""
    register_formula(forward, forward_flops)
    register_formula(grad_input, _grad_input_flops)
    register_formula(grad_weight, _grad_weight_flops)
