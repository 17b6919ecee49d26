"""The definition of a convolution that is linear in its input and in its weights, with its gradients and with ReLU."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import ModuleType

from torch import Tensor

from icconv_mm.ops.common.tensors import empty
from icconv_mm.ops.definition.convolution_gradients import Form, derivative, flops, shapes_of
from icconv_mm.ops.definition.operator import define, library, without_gradient
from icconv_mm.ops.dispatch import backend, limits_cpu, limits_cuda
from icconv_mm.ops.dispatch.fast_path import FastCall


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
    convolution = _Convolution(name, weights, numbers, reference, converters)
    operators = convolution.define_outputs(maker)
    convolution.define_gradients(grad_input_fake, grad_weight_fake)
    convolution.define_backward()
    return operators


class _Convolution:
    """The operators of one convolution as they are defined; arguments as of :func:`define_convolution`."""

    def __init__(self, name: str, weights: str, numbers: str, reference: ModuleType, converters: Mapping | None):
        self.name, self.weights, self.numbers, self.reference = name, weights, numbers, reference
        self.converters = converters
        self.several = weights.startswith('Tensor[]')
        self.form = Form(
            lambda x, tensors, call, bias=None: self.output(x, self.pack(tensors), bias, *call),
            lambda grad, tensors, size, call: self.grad_input(grad, self.pack(tensors), size, *call),
            lambda grad, x, sizes, call: self.unpack(
                self.grad_weight(grad, x, *([sizes] if self.several else []), *call)
            ),
        )

    def pack(self, tensors: Sequence[Tensor]) -> list[Tensor] | Tensor:
        """From a sequence to what the operators take."""
        return list(tensors) if self.several else tensors[0]

    def unpack(self, packed: list[Tensor] | Tensor) -> list[Tensor]:
        """And back."""
        return packed if self.several else [packed]

    def define(self, suffix: str, schema: str, reference: Callable, **options) -> Callable:
        """One of the operators, with its kernels; ``options`` are those of :func:`define`."""
        operator = f'{self.name}{suffix}'
        limited = self.name if suffix == '_relu' else operator
        kernels = {'cpu': limits_cpu.LIMITS[limited], 'cuda': limits_cuda.LIMITS[limited]}
        return define(operator, schema, reference, kernels=kernels, converters=self.converters, **options)

    def define_outputs(self, maker: str) -> tuple[Callable, Callable]:
        """``<name>``, and ``<name>_relu`` without a gradient."""
        schema = f'(Tensor x, {self.weights}, Tensor? bias, {self.numbers}) -> Tensor'
        shared = dict(fake=self._output_fake, autocast=True, flops=self._output_flops, layout_of=0)
        fast = FastCall(maker, filters=self.pack, shapes=lambda tensors: (shapes_of(tensors),) if self.several else ())

        @wraps(self.reference.forward)
        def rectified(*args):  # on the backend of the plain call: one without a fused kernel costs no more than before
            return backend.run(self.name, *args).relu_()

        self.output = self.define(
            '',
            schema,
            self.reference.forward,
            autograd=lambda _, x, packed, bias, *call: derivative(
                self.form, call, x=x, weights=self.unpack(packed), bias=bias
            ),
            fast_call=fast,
            **shared,
        )
        rectifying = self.define(
            '_relu', schema, rectified, autograd=without_gradient, fast_call=fast._replace(relu=True), **shared
        )
        return self.output, rectifying

    def _output_fake(self, x, packed, bias, first, stride, third):
        height, width = ((size - 1) // stride + 1 for size in x.shape[2:])
        return empty((x.shape[0], sum(weight.shape[0] for weight in self.unpack(packed)), height, width), like=x)

    def _output_flops(self, x, packed, *_, out_shape, **__):
        return flops(out_shape, self.unpack(packed))

    def define_gradients(self, grad_input_fake: Callable, grad_weight_fake: Callable) -> None:
        """``<name>_grad_input`` and ``<name>_grad_weight``, which have gradients themselves."""
        self.grad_input = self.define(
            '_grad_input',
            f'(Tensor grad, {self.weights}, SymInt[] size, {self.numbers}) -> Tensor',
            self.reference.grad_input,
            fake=grad_input_fake,
            autograd=lambda _, grad, packed, size, *call: derivative(
                self.form, call, grad=grad, weights=self.unpack(packed), sizes=size
            ),
            flops=lambda grad, packed, *_, **__: flops(grad, self.unpack(packed)),
            layout_of=0,
        )
        shapes, result = ('SymInt[] shapes, ', 'Tensor[]') if self.several else ('', 'Tensor')
        self.grad_weight = self.define(
            '_grad_weight',
            f'(Tensor grad, Tensor x, {shapes}{self.numbers}) -> {result}',
            self.reference.grad_weight,
            fake=grad_weight_fake,
            autograd=self._grad_weight_rule,
            flops=lambda grad, *_, out_shape, **__: flops(grad, self.unpack(out_shape)),
        )

    def _grad_weight_rule(self, _, grad, x, *rest):
        sizes, call = (rest[0], rest[1:]) if self.several else ((), rest)
        return self.pack(derivative(self.form, call, grad=grad, x=x, sizes=sizes))

    def define_backward(self) -> None:
        """By which the gradient rule in C++ (csrc/python/calls.cpp) reaches operators that are differentiable."""
        library.define(
            f'{self.name}_backward(Tensor grad, Tensor x, {self.weights}, {self.numbers}, bool to_x, bool to_weights, '
            'str backend) -> Tensor[]'
        )
        # the latter two: with several gradients at once it is taken apart as well, instead of being called for each
        for key in ('CompositeImplicitAutograd', 'Batched', 'FuncTorchBatchedDecomposition'):
            library.impl(f'{self.name}_backward', self._backward, key)

    def _backward(self, grad, x, packed, first, stride, third, to_x, to_weights, chosen):
        call, tensors = (first, stride, third), self.unpack(packed)
        with backend.use_backend(chosen):  # of the forward pass; this may be a thread of autograd
            results = [self.form.grad_input(grad, tensors, x.shape[2:], call)] if to_x else []
            return results + (list(self.form.grad_weight(grad, x, shapes_of(tensors), call)) if to_weights else [])
