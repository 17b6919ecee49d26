"""The definition of a convolution that is linear in its input and in its weights, with its gradients and with ReLU."""

from collections.abc import Callable, Mapping
from functools import wraps
from types import ModuleType

from icconv_mm.ops import backend, limits_cpu, limits_cuda
from icconv_mm.ops.operator import FastCall, define, library, without_gradient
from icconv_mm.ops.tensors import empty
from icconv_mm.ops.trilinear import Form, derivative, flops, shapes_of


def define_convolution(
    name: str,
    weights: str,
    numbers: str,
    reference: ModuleType,
    *,
    maker: str,
    grad_input_fake: Callable,
    grad_weight_fake: Callable,
    converters: Mapping[str, Callable] | None = None,
) -> tuple[Callable, Callable]:
    """Define the operators ``<name>``, ``<name>_grad_input``, ``<name>_grad_weight`` and ``<name>_relu``.

    Args:
        name: Name of the convolution.
        weights: Schema of the weights: 'Tensor weight', or 'Tensor[] weights', whose gradient also takes their shapes.
        numbers: Schema of what follows the tensors, three arguments, the second of which is the stride.
        reference: Module with ``forward``, ``grad_input`` and ``grad_weight``.
        maker: Maker of the :class:`FastCall`.
        grad_input_fake, grad_weight_fake: Functions for tensors without data, as of :func:`define`.
        converters: Functions by argument, as of :func:`define`.

    Returns:
        The operators ``<name>`` and ``<name>_relu``.
    """
    several = '[]' if weights.startswith('Tensor[]') else ''

    def pack(tensors):  # from a sequence to what the operators take, and back
        return list(tensors) if several else tensors[0]

    def unpack(packed):
        return packed if several else [packed]

    def shapes(tensors):
        return (shapes_of(tensors),) if several else ()

    def limits(operator):
        return {'cpu': limits_cpu.LIMITS[operator], 'cuda': limits_cuda.LIMITS[operator]}

    def output_fake(x, packed, bias, first, stride, third):
        height, width = ((size - 1) // stride + 1 for size in x.shape[2:])
        return empty((x.shape[0], sum(weight.shape[0] for weight in unpack(packed)), height, width), like=x)

    def grad_weight_rule(_, grad, x, *rest):
        sizes, call = (rest[0], rest[1:]) if several else ((), rest)
        return pack(derivative(form, call, grad=grad, x=x, sizes=sizes))

    @wraps(reference.forward)
    def rectified(*args):  # on the backend of the plain call: one without a fused kernel costs no more than before
        return backend.run(name, *args).relu_()

    form = Form(
        lambda x, tensors, call, bias=None: output(x, pack(tensors), bias, *call),
        lambda grad, tensors, size, call: grad_input(grad, pack(tensors), size, *call),
        lambda grad, x, sizes, call: unpack(grad_weight(grad, x, *([sizes] if several else []), *call)),
    )
    fast = FastCall(maker, filters=pack, shapes=shapes)
    forward = dict(
        schema=f'(Tensor x, {weights}, Tensor? bias, {numbers}) -> Tensor',
        fake=output_fake,
        autocast=True,
        flops=lambda x, packed, *_, out_shape, **__: flops(out_shape, unpack(packed)),
        layout_of=0,
        kernels=limits(name),
        converters=converters,
    )
    output = define(
        name,
        reference=reference.forward,
        autograd=lambda _, x, packed, bias, *call: derivative(form, call, x=x, weights=unpack(packed), bias=bias),
        fast_call=fast,
        **forward,
    )
    output_relu = define(
        f'{name}_relu',
        reference=rectified,
        autograd=without_gradient,
        fast_call=fast._replace(relu=True),
        **forward,
    )
    grad_input = define(
        f'{name}_grad_input',
        f'(Tensor grad, {weights}, SymInt[] size, {numbers}) -> Tensor',
        reference.grad_input,
        fake=grad_input_fake,
        autograd=lambda _, grad, packed, size, *call: derivative(
            form, call, grad=grad, weights=unpack(packed), sizes=size
        ),
        flops=lambda grad, packed, *_, **__: flops(grad, unpack(packed)),
        layout_of=0,
        kernels=limits(f'{name}_grad_input'),
        converters=converters,
    )
    grad_weight = define(
        f'{name}_grad_weight',
        f'(Tensor grad, Tensor x, {"SymInt[] shapes, " if several else ""}{numbers}) -> Tensor{several}',
        reference.grad_weight,
        fake=grad_weight_fake,
        autograd=grad_weight_rule,
        flops=lambda grad, *_, out_shape, **__: flops(grad, unpack(out_shape)),
        kernels=limits(f'{name}_grad_weight'),
        converters=converters,
    )

    def backward(grad, x, packed, first, stride, third, to_x, to_weights, chosen):
        call, tensors = (first, stride, third), unpack(packed)
        with backend.use_backend(chosen):  # of the forward pass; this may be a thread of autograd
            results = [form.grad_input(grad, tensors, x.shape[2:], call)] if to_x else []
            return results + (list(form.grad_weight(grad, x, shapes_of(tensors), call)) if to_weights else [])

    # by which the gradient rule in C++ (csrc/python/calls.cpp) reaches operators that are differentiable
    library.define(
        f'{name}_backward(Tensor grad, Tensor x, {weights}, {numbers}, bool to_x, bool to_weights, str backend) '
        '-> Tensor[]'
    )
    # the latter two: with several gradients at once it is taken apart as well, instead of being called for each
    for key in ('CompositeImplicitAutograd', 'Batched', 'FuncTorchBatchedDecomposition'):
        library.impl(f'{name}_backward', backward, key)
    return output, output_relu
