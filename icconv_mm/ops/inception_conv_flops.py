"""What torch's FLOP counter needs to know about the inception convolution.

Tools that trace (TorchScript, ONNX export, mmengine's ``get_model_complexity_info``) need nothing: for them the
operator is written out as ordinary convolutions.
"""

from math import prod

from torch.utils import flop_counter


def _flops(out_shape, weight_shape) -> int:
    """Those of the dense convolution, two per multiplication; from the shapes of the output and of the weight."""
    batch, _, *space = out_shape
    return 2 * batch * prod(space) * prod(weight_shape)


def forward_flops(x, weight, bias, pattern, stride, groups, *, out_shape=None, **_) -> int:
    return _flops(out_shape, weight)


def _grad_input_flops(grad, weight, *_, **__) -> int:
    return _flops(grad, weight)


def _grad_weight_flops(grad, x, *_, out_shape=None, **__) -> int:
    return _flops(grad, out_shape)


def register_formula(operator, formula) -> None:
    """Makes ``formula``, a function of shapes, what torch's FLOP counter asks for an operator."""
    if hasattr(flop_counter, 'register_flop_formula'):
        flop_counter.register_flop_formula(operator)(formula)
    else:  # before torch 2.2
        flop_counter.flop_mapping[operator] = formula


def register(forward, grad_input, grad_weight) -> None:
    """Tells torch the FLOPs of ``torch.ops.icconv_mm.inception_conv2d`` and of its gradients."""
    register_formula(forward, forward_flops)
    register_formula(grad_input, _grad_input_flops)
    register_formula(grad_weight, _grad_weight_flops)
