"""A convolution that is linear in its input and in its weights: its operators, and the one way to call them."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import ModuleType

from torch import Tensor

from icconv_mm.ops.common.tensors import empty
from icconv_mm.ops.definition.convolution_gradients import TrilinearForm, derivative, flops, shapes_of
from icconv_mm.ops.definition.operator import decomposed, define, fragment, refuse_gradient, without_gradient
from icconv_mm.ops.dispatch import backend
from icconv_mm.ops.dispatch.fast_path import FastCall, fast_call, fast_calls
from icconv_mm.ops.reference import dense_convolution
from icconv_mm.utils.torch_private import is_jit_or_onnx_tracing


class Convolution:
    """The operators ``<name>``, ``<name>_grad_input``, ``<name>_grad_weight`` and ``<name>_relu``, and their call.

    The settings of a call are what follows its tensors: ``table, stride, number``. The table is a list of integers, a
    pattern or the groups of the levels; the number is the groups or the dilation.

    Args:
        function: The Python function ``<name>``; that with ReLU takes the same.
        reference: Module with ``forward``, ``grad_input`` and ``grad_weight``.
        weights_schema: Schema of the weights: 'Tensor weight', or 'Tensor[] weights', whose gradient also takes their
            shapes.
        settings_schema: Schema of the settings: 'int[] pattern, int stride, int groups'.
        limits: Limits of the compiled kernels, by backend and operator; ``<name>_relu`` has those of ``<name>``.
        check: Function that raises ValueError unless these are arguments of the operator ``<name>``.
        dense: Function from the settings of a single dilation or level to stride, dilation and groups.
        fast_call_maker: Name of the maker of the :class:`FastCall`.
        grad_input_fake, grad_weight_fake: Functions for tensors without data, as of :func:`define`.
        converters: Functions by argument, from what ``function`` takes to what the operators take.
    """

    def __init__(
        self,
        function: Callable,
        reference: ModuleType,
        *,
        weights_schema: str,
        settings_schema: str,
        limits: Mapping[str, Mapping[str, backend.Limits]],
        check: Callable,
        dense: Callable,
        fast_call_maker: str,
        grad_input_fake: Callable,
        grad_weight_fake: Callable,
        converters: Mapping[str, Callable],
    ):
        self.name, self.reference, self.check, self.dense = function.__name__, reference, check, dense
        self.limits, self.converters, self.takes_list = limits, converters, weights_schema.startswith('Tensor[]')
        self.form = TrilinearForm(
            lambda x, tensors, settings, bias=None: self.output(x, self.pack(tensors), bias, *settings),
            lambda grad, tensors, size, settings: self.grad_input(grad, self.pack(tensors), size, *settings),
            lambda grad, x, sizes, settings: self.unpack(self.grad_weight(grad, x, *self.shapes(sizes), *settings)),
        )
        self._define_outputs(function, weights_schema, settings_schema)
        self._define_gradients(weights_schema, settings_schema, grad_input_fake, grad_weight_fake)
        self._define_backward(weights_schema, settings_schema)
        fast = FastCall(fast_call_maker, filters=self.pack, shapes=lambda tensors: self.shapes(shapes_of(tensors)))
        fast_calls.update({self.name: fast, self.rectified_name: fast._replace(relu=True)})

    def call(
        self,
        x: Tensor,
        weights: Sequence[Tensor],
        bias: Tensor | None,
        settings: tuple,
        several: bool,
        relu: bool = False,
    ) -> Tensor:
        """What the functions of the convolution do: all from unchecked arguments to the result.

        Args:
            x, weights, bias: Tensors of the call.
            settings: The table, a tuple, the stride and the number.
            several: Whether there are several dilations or levels; one alone is torch's own convolution.
            relu: Whether negative values become zero.

        Raises:
            ValueError: If the arguments do not fit.
            RuntimeError: If a tensor requires a gradient and ``relu`` is set, except in a trace.
        """
        if several:
            out = fast_call(self.rectified_name if relu else self.name, settings, x, weights, bias)
            if out is not None:
                return out
        table, stride, number = settings
        args = x, self.pack(weights), bias, [int(entry) for entry in table], stride, number
        if is_jit_or_onnx_tracing():
            out = decomposed(self.reference.forward, self.check, *args)
        else:
            self.check(*args)
            if several:
                return (self.rectified if relu else self.output)(*args)
            if relu:  # what follows has a gradient: as with several, it is an error to ask for one
                refuse_gradient(self.rectified_name, *args)
            if dense_convolution.is_trusted(x, stride):  # torch has the best kernel
                out = dense_convolution.forward(x, weights[0], bias, *self.dense(*args[3:]))
            else:
                out = self.output(*args)
        return out.relu_() if relu else out

    def pack(self, tensors: Sequence[Tensor]) -> list[Tensor] | Tensor:
        """From a sequence to what the operators take."""
        return list(tensors) if self.takes_list else tensors[0]

    def unpack(self, packed: list[Tensor] | Tensor) -> list[Tensor]:
        """And back."""
        return packed if self.takes_list else [packed]

    def shapes(self, sizes: Sequence[int]) -> tuple:
        """From what :func:`shapes_of` returns to the arguments that ``<name>_grad_weight`` takes for it."""
        return (sizes,) if self.takes_list else ()

    def _define(self, suffix: str, schema: str, reference: Callable, **options) -> Callable:
        operator = f'{self.name}{suffix}'
        limited = self.name if suffix == '_relu' else operator
        limits = {device: by_operator[limited] for device, by_operator in self.limits.items()}
        return define(operator, schema, reference, limits=limits, **options)

    def _define_outputs(self, function: Callable, weights_schema: str, settings_schema: str) -> None:
        schema = f'(Tensor x, {weights_schema}, Tensor? bias, {settings_schema}) -> Tensor'
        arguments = backend.Arguments(function, self.check, self.converters)
        shared = dict(arguments=arguments, fake=self._output_fake, autocast=True, flops=self._output_flops, layout_of=0)
        forward = self.reference.forward

        @wraps(forward)
        def rectified(*args):  # on the backend of the plain call: one without a fused kernel costs no more than before
            return backend.run(self.name, *args).relu_()

        def rule(_, x, packed, bias, *settings):
            return derivative(self.form, settings, x=x, weights=self.unpack(packed), bias=bias)

        self.rectified_name = f'{self.name}_relu'
        self.output = self._define('', schema, forward, autograd=rule, **shared)
        self.rectified = self._define('_relu', schema, rectified, autograd=without_gradient, **shared)

    def _output_fake(self, x, packed, bias, table, stride, number):
        height, width = ((size - 1) // stride + 1 for size in x.shape[2:])
        return empty((x.shape[0], sum(weight.shape[0] for weight in self.unpack(packed)), height, width), like=x)

    def _output_flops(self, x, packed, *_, out_shape, **__):
        return flops(out_shape, self.unpack(packed))

    def _define_gradients(
        self, weights_schema: str, settings_schema: str, grad_input_fake: Callable, grad_weight_fake: Callable
    ) -> None:
        """Operators that have gradients themselves."""

        def to_input(_, grad, packed, size, *settings):
            return derivative(self.form, settings, grad=grad, weights=self.unpack(packed), sizes=size)

        def to_weight(_, grad, x, *rest):
            sizes, settings = (rest[0], rest[1:]) if self.takes_list else ((), rest)
            return self.pack(derivative(self.form, settings, grad=grad, x=x, sizes=sizes))

        self.grad_input = self._define(
            '_grad_input',
            f'(Tensor grad, {weights_schema}, SymInt[] size, {settings_schema}) -> Tensor',
            self.reference.grad_input,
            arguments=backend.Arguments(self.reference.grad_input, converters=self.converters),
            fake=grad_input_fake,
            autograd=to_input,
            flops=lambda grad, packed, *_, **__: flops(grad, self.unpack(packed)),
            layout_of=0,
        )
        shapes, result = ('SymInt[] shapes, ', 'Tensor[]') if self.takes_list else ('', 'Tensor')
        self.grad_weight = self._define(
            '_grad_weight',
            f'(Tensor grad, Tensor x, {shapes}{settings_schema}) -> {result}',
            self.reference.grad_weight,
            arguments=backend.Arguments(self.reference.grad_weight, converters=self.converters),
            fake=grad_weight_fake,
            autograd=to_weight,
            flops=lambda grad, *_, out_shape, **__: flops(grad, self.unpack(out_shape)),
        )

    def _define_backward(self, weights_schema: str, settings_schema: str) -> None:
        """By which the gradient rule in C++ (csrc/python/fast_path.cpp) reaches operators that are differentiable."""
        name = f'{self.name}_backward'
        rest = f'{settings_schema}, bool to_x, bool to_weights, str backend'
        fragment.define(f'{name}(Tensor grad, Tensor x, {weights_schema}, {rest}) -> Tensor[]')
        # the latter two: with several gradients at once it is taken apart as well, instead of being called for each
        for key in ('CompositeImplicitAutograd', 'Batched', 'FuncTorchBatchedDecomposition'):
            fragment.impl(name, self._backward, key)

    def _backward(self, grad, x, packed, table, stride, number, to_x, to_weights, chosen):
        settings, tensors = (table, stride, number), self.unpack(packed)
        with backend.use_backend(chosen):  # of the forward pass; this may be a thread of autograd
            results = [self.form.grad_input(grad, tensors, x.shape[2:], settings)] if to_x else []
            return results + (list(self.form.grad_weight(grad, x, shapes_of(tensors), settings)) if to_weights else [])
