"""The operators of a convolution that is linear in its input and weights, their gradients, and its call."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial, wraps
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from icconv_mm.ops import dispatch
from icconv_mm.ops.dispatch import Arguments, Kernel
from icconv_mm.ops.library import decomposed, define, fragment, refuse_gradient, without_gradient
from icconv_mm.ops.tensors import convolve, device_refusal, empty, tensors_of
from icconv_mm.torch_private import below_autograd, in_functorch, is_compiling, is_jit_or_onnx_tracing

FORWARD, GRADIENTS = 1, 2  # passes of a call, as in csrc/python/fast_path.cpp
PROVEN = ((9, 0),)  # compute capabilities of GPUs on which the backend was correct and faster
_CPU_DTYPES = (torch.float32, torch.bfloat16)


def cpu_refusal(*args) -> str | None:
    """Returns why the CPU kernels of convolutions cannot run a call; None if they can."""
    tensors = tensors_of(args)
    if reason := device_refusal(tensors, 'cpu'):
        return reason
    dtypes = list(dict.fromkeys(t.dtype for t in tensors))
    if len(dtypes) > 1 or dtypes[0] not in _CPU_DTYPES:
        return f'it needs float32 or bfloat16, the same for all, got {" and ".join(map(str, dtypes))}'
    return None


@cache
def capability(device: torch.device) -> tuple[int, int]:
    """Returns the compute capability of a GPU."""
    return torch.cuda.get_device_capability(device)


def unproven(device: torch.device) -> str | None:
    """Returns why the CUDA backend is no default on a GPU; None if it is."""
    if capability(device) in PROVEN:
        return None
    return f'its tests have not passed on a GPU like {device}'


class Part(NamedTuple):
    """One of the three operators of a convolution."""

    reference: Callable
    kernels: Mapping[str, Kernel]  # by backend
    fake: Callable | None = None  # as of :func:`define`; a convolution has its own for the output


class Convolution:
    """The operators ``<name>``, ``<name>_grad_input``, ``<name>_grad_weight`` and ``<name>_relu``, and their call.

    With the trilinear form T(x, w, g) = <g, conv(x, w)>, the convolution is the partial derivative of T for g, the
    gradient for its input the one for x, the gradient for its weights the one for w. Each is a function of the two
    other arguments, and its own gradients are again partial derivatives of T, with the outer gradient as the third
    argument. So three operators are enough for derivatives of any order.

    The settings of a call are the arguments after its tensors: ``table, stride, number``. The table is a list of
    integers, a pattern or the groups of the levels; the number is the groups or the dilation.

    Args:
        function: The Python function ``<name>``; the one with ReLU has the same arguments.
        output, grad_input, grad_weight: The three operators; ``<name>_relu`` has the kernels of the first.
        weights_schema: Schema of the weights: 'Tensor weight', or 'Tensor[] weights', whose gradient also has their
            shapes as an argument.
        settings_schema: Schema of the settings: 'int[] pattern, int stride, int groups'.
        check: Function that raises ValueError unless these are arguments of the operator ``<name>``.
        standard: Function of the arguments of the operator and of ``relu``: the output by convolutions that every
            runtime has, for exports to ONNX.
        dense: Function from the settings of a single dilation or level to stride, dilation and groups.
        maker: The argument of :func:`dispatch.prepared`.
        converters: Functions by argument, from arguments of ``function`` to arguments of the operators.
    """

    def __init__(
        self,
        function: Callable,
        output: Part,
        grad_input: Part,
        grad_weight: Part,
        *,
        weights_schema: str,
        settings_schema: str,
        check: Callable,
        standard: Callable,
        dense: Callable,
        maker: str,
        converters: Mapping[str, Callable],
    ):
        self.name, self.relu_name = function.__name__, f'{function.__name__}_relu'
        self.reference, self.standard, self.check = output.reference, standard, check
        self.dense, self.maker = dense, maker
        self.takes_list, schemas = weights_schema.startswith('Tensor[]'), (weights_schema, settings_schema)
        self._define_outputs(output, Arguments(function, check, converters), *schemas)
        self._define_gradients(grad_input, grad_weight, converters, *schemas)
        # the operators by which the gradient rule in C++ (csrc/python/fast_path.cpp) is differentiable
        name, rest = f'{self.name}_backward', f'{settings_schema}, bool to_x, bool to_weights, str backend'
        fragment.define(f'{name}(Tensor grad, Tensor x, {weights_schema}, {rest}) -> Tensor[]')
        # the latter two: vmap over several gradients decomposes it instead of calling it for each
        for key in ('CompositeImplicitAutograd', 'Batched', 'FuncTorchBatchedDecomposition'):
            fragment.impl(name, self._backward, key)

    # --- a call

    def call(
        self,
        x: Tensor,
        weights: Sequence[Tensor],
        bias: Tensor | None,
        settings: tuple,
        several: bool,
        relu: bool = False,
    ) -> Tensor:
        """Computes the convolution from unchecked arguments.

        Args:
            x, weights, bias: Tensors of the call.
            settings: The table, a tuple, the stride and the number.
            several: Whether there are several dilations or levels; a single one uses torch's convolution.
            relu: Whether negative values become zero.

        Raises:
            ValueError: If the arguments do not fit.
            RuntimeError: If a tensor requires a gradient and ``relu`` is set, except in a trace.
        """
        table, stride, number = settings
        if is_jit_or_onnx_tracing():  # first: a trace would record the loading
            args = x, self.pack(weights), bias, [int(entry) for entry in table], stride, number
            if torch.onnx.is_in_onnx_export():
                return decomposed(partial(self.standard, relu=relu), self.check, *args)
            out = decomposed(self.reference, self.check, *args)
            return out.relu_() if relu else out
        if several:
            run = dispatch.prepared(self.maker, settings, relu, self.supported)
            if run is not None and (out := run(x, weights, bias, dispatch.requested())) is not None:
                return out  # of the fast path in C++
        args = x, self.pack(weights), bias, [int(entry) for entry in table], stride, number
        if not is_compiling() and in_functorch():  # functorch supports only torch's operators
            out = decomposed(self.reference, self.check, *args)
            return out.relu_() if relu else out
        self.check(*args)
        if several:
            return (self.relu if relu else self.output)(*args)
        if relu:  # torch's ReLU has a gradient: as with several, requiring one is an error
            refuse_gradient(self.relu_name, *args)
        out = convolve(x, weights[0], bias, *self.dense(*args[3:]))  # torch's kernel is the best
        return out.relu_() if relu else out

    def supported(self, relu: bool, settings: tuple, x: Tensor, weights: Sequence[Tensor], bias: Tensor | None) -> int:
        """Returns which passes of a call run on compiled kernels now."""
        packed = self.pack(weights)
        if not dispatch.is_compiled(self.relu_name if relu else self.name, x, packed, bias, *settings):
            return 0
        if relu:
            return FORWARD
        grad, shapes = x.new_empty(0, sum(map(len, weights)), *x.shape[2:]), self.shapes(shapes_of(weights))
        to_input = dispatch.is_compiled(f'{self.name}_grad_input', grad, packed, tuple(x.shape[2:]), *settings)
        to_weight = dispatch.is_compiled(f'{self.name}_grad_weight', grad, x, *shapes, *settings)
        return FORWARD | (GRADIENTS if to_input and to_weight else 0)

    def third(
        self,
        settings: Sequence,
        x: Tensor | None,
        grad: Tensor | None,
        weights: Sequence[Tensor],
        sizes: Sequence[int] = (),
        bias: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Computes the one of x, grad and weights that is None, by its operator.

        Args:
            settings: The arguments after the tensors of a call.
            x, grad, weights: Two of the three.
            sizes: Sizes of the result if it is x (two numbers) or weights (those of :func:`shapes_of`).
            bias: ``[C_out]``, added to the output, or None.
        """
        if grad is None:
            return self.output(x, self.pack(weights), bias, *settings)
        if x is None:
            return self.grad_input(grad, self.pack(weights), sizes, *settings)
        return tuple(self.unpack(self.grad_weight(grad, x, *self.shapes(sizes), *settings)))

    def pack(self, tensors: Sequence[Tensor]) -> list[Tensor] | Tensor:
        """Converts a sequence to the weights argument of the operators."""
        return list(tensors) if self.takes_list else tensors[0]

    def unpack(self, packed: list[Tensor] | Tensor) -> list[Tensor]:
        """Converts the weights argument of the operators to a sequence."""
        return packed if self.takes_list else [packed]

    def shapes(self, sizes: Sequence[int]) -> tuple:
        """Converts the result of :func:`shapes_of` to arguments of ``<name>_grad_weight``."""
        return (sizes,) if self.takes_list else ()

    # --- the operators

    def _define_outputs(self, part: Part, arguments: Arguments, weights_schema: str, settings_schema: str) -> None:
        schema = f'(Tensor x, {weights_schema}, Tensor? bias, {settings_schema}) -> Tensor'
        shared = dict(
            kernels=part.kernels,
            arguments=arguments,
            fake=self._output_fake,
            autocast=True,
            flops=lambda x, packed, *_, out_shape, **__: flops(out_shape, self.unpack(packed)),
            layout_of=0,
        )

        @wraps(part.reference)
        def relu(*args):  # on the backend of the plain call if it has no kernel with ReLU
            return dispatch.run(self.name, *args).relu_()

        def rule(_, x, packed, bias, *settings):
            return _Derivative.apply(self, settings, (), bias, x, None, *self.unpack(packed))

        self.output = define(self.name, schema, part.reference, autograd=rule, standard=self.standard, **shared)
        compiled = {backend: kernel for backend, kernel in part.kernels.items() if kernel.run is None}
        self.relu = define(
            self.relu_name,
            schema,
            relu,
            autograd=without_gradient,
            standard=partial(self.standard, relu=True),
            **{**shared, 'kernels': compiled},
        )

    def _output_fake(self, x, packed, bias, table, stride, number):
        height, width = ((size - 1) // stride + 1 for size in x.shape[2:])
        return empty((x.shape[0], sum(weight.shape[0] for weight in self.unpack(packed)), height, width), like=x)

    def _define_gradients(
        self,
        to_x: Part,
        to_weights: Part,
        converters: Mapping[str, Callable],
        weights_schema: str,
        settings_schema: str,
    ) -> None:
        """Defines the operators of the gradients, which have gradients themselves."""

        def rule_of_input(_, grad, packed, size, *settings):
            return _Derivative.apply(self, settings, size, None, None, grad, *self.unpack(packed))

        def rule_of_weight(_, grad, x, *rest):
            sizes, settings = (rest[0], rest[1:]) if self.takes_list else ((), rest)
            return self.pack(_Derivative.apply(self, settings, sizes, None, x, grad))

        self.grad_input = define(
            f'{self.name}_grad_input',
            f'(Tensor grad, {weights_schema}, SymInt[] size, {settings_schema}) -> Tensor',
            to_x.reference,
            kernels=to_x.kernels,
            arguments=Arguments(to_x.reference, converters=converters),
            fake=to_x.fake,
            autograd=rule_of_input,
            flops=lambda grad, packed, *_, **__: flops(grad, self.unpack(packed)),
            layout_of=0,
        )
        shapes, result = ('SymInt[] shapes, ', 'Tensor[]') if self.takes_list else ('', 'Tensor')
        self.grad_weight = define(
            f'{self.name}_grad_weight',
            f'(Tensor grad, Tensor x, {shapes}{settings_schema}) -> {result}',
            to_weights.reference,
            kernels=to_weights.kernels,
            arguments=Arguments(to_weights.reference, converters=converters),
            fake=to_weights.fake,
            autograd=rule_of_weight,
            flops=lambda grad, *_, out_shape, **__: flops(grad, self.unpack(out_shape)),
        )

    def _backward(self, grad, x, packed, table, stride, number, to_x, to_weights, chosen):
        settings, weights = (table, stride, number), self.unpack(packed)
        with dispatch.use_backend(chosen):  # the backend of the forward pass: this may be a thread of autograd
            results = [self.third(settings, None, grad, weights, x.shape[2:])] if to_x else []
            return results + (list(self.third(settings, x, grad, (), shapes_of(weights))) if to_weights else [])


class _Derivative(torch.autograd.Function):
    """The gradient rule of all three operators: ``Convolution.third``, whose gradients have the same rule."""

    @staticmethod
    def forward(ctx, convolution, settings, sizes, bias, x, grad, *weights):
        ctx.save_for_backward(x, grad, *weights)
        ctx.save_for_forward(x, grad, *weights)
        ctx.convolution, ctx.settings, ctx.sizes = convolution, settings, sizes
        ctx.backend = dispatch.requested()
        with below_autograd():
            return convolution.third(settings, x, grad, weights, sizes, bias)

    @staticmethod
    def jvp(ctx, *tangents):
        """Returns the tangent: the form is linear in each argument, so a sum with each one replaced by its tangent."""
        _, _, _, d_bias, d_x, d_grad, *d_weights = tangents
        x, grad, *weights = ctx.saved_tensors
        exchanged = [] if d_x is None else [(d_x, grad, weights)]
        exchanged += [] if d_grad is None else [(x, d_grad, weights)]
        if any(weight is not None for weight in d_weights):
            moved = [torch.zeros_like(weight) if d is None else d for weight, d in zip(weights, d_weights)]
            exchanged.append((x, grad, moved))
        terms = [ctx.convolution.third(ctx.settings, *tangent, ctx.sizes) for tangent in exchanged]
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
        # autograd may run this on another thread, where the caller's `use_backend` does not hold
        with dispatch.use_backend(ctx.backend):
            if need_x:
                to_x = ctx.convolution.third(ctx.settings, None, grad, weights, x.shape[2:])
            if need_grad:
                to_grad = ctx.convolution.third(ctx.settings, x, None, weights)
            if any(need_weights):
                to_weights = ctx.convolution.third(ctx.settings, x, grad, (), shapes_of(weights))
        if need_bias:
            to_bias = grad.sum((0, 2, 3))
        return None, None, None, to_bias, to_x, to_grad, *to_weights


def shapes_of(weights: Sequence[Tensor]) -> list[int]:
    """Returns three numbers for each of the weights: its channels and its kernel."""
    return [number for weight in weights for number in (weight.shape[0], *weight.shape[2:])]


def flops(output: Sequence[int], weights: Sequence[Sequence[int]]) -> int:
    """Returns the operations of each of the three operators, two per product, by shapes of output and weights."""
    return 2 * output[0] * prod(output[2:]) * sum(map(prod, weights))
