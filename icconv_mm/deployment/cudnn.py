"""The inference form on a GPU: convolution, bias, addition and ReLU in one kernel of cuDNN.

torch computes a convolution with bias, the addition of a shortcut and ReLU as four kernels, each of which passes over
the map. cuDNN has them as one, which torch offers as ``cudnn_convolution_relu`` and ``cudnn_convolution_add_relu``.
"""

import logging
import operator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from icconv_mm.deployment.chains import is_plain, trace
from icconv_mm.deployment.folding import Folded
from icconv_mm.utils.torch_private import has_hooks, is_traced

_log = logging.getLogger(__name__)

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


class Conv2dAddReLU(nn.Conv2d):
    """``relu(conv(x) + z)``, z being left out where there is none; for inference."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> 'Conv2dAddReLU':
        """The layer with the weight of ``conv`` and its bias, or zeros, without which torch would make them anew."""
        size = conv.in_channels, conv.out_channels, conv.kernel_size
        new = cls(*size, conv.stride, conv.padding, conv.dilation, conv.groups, device='meta')
        new.weight = conv.weight
        zeros = conv.weight.new_zeros(conv.out_channels)
        new.bias = nn.Parameter(zeros if conv.bias is None else conv.bias.detach(), requires_grad=False)
        return new.eval()

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """``[N, C_in, H, W]``, and z of the output's shape or one that broadcasts -> ``[N, C_out, H', W']``."""
        settings = self.stride, self.padding, self.dilation, self.groups
        if is_fused(x, self.weight) and not is_traced():
            if z is None:
                return torch.cudnn_convolution_relu(x, self.weight, self.bias, *settings)
            if tuple(z.shape) == self._shape(x) and z.dtype == x.dtype:
                return torch.cudnn_convolution_add_relu(x, self.weight, z, 1.0, self.bias, *settings)
        y = F.conv2d(x, self.weight, self.bias, *settings)
        return F.relu(y if z is None else y + z)

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        numbers = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation)
        sides = ((size + 2 * pad - dil * (side - 1) - 1) // step + 1 for size, side, step, pad, dil in numbers)
        return x.shape[0], self.out_channels, *sides


def is_fused(x: Tensor, weight: Tensor) -> bool:
    """Whether cuDNN computes such a call as one kernel."""
    return x.is_cuda and x.dtype == weight.dtype and not torch.is_autocast_enabled() and torch.backends.cudnn.enabled


def is_supported(model: nn.Module) -> bool:
    """Whether a model is on a GPU whose cuDNN computes what it must for the model's dtype."""
    weight = next((p for p in model.parameters() if p.is_cuda and p.ndim == 4), None)
    return weight is not None and _works(weight.device, weight.dtype)


@cache
def _works(device: torch.device, dtype: torch.dtype) -> bool:
    """Tries both forms on a small map; some versions of cuDNN lack them for some dtypes."""
    if not torch.backends.cudnn.is_available():
        return False
    conv = nn.Conv2d(16, 16, 3, padding=1, device=device, dtype=dtype).requires_grad_(False)
    conv = conv.to(memory_format=torch.channels_last)
    layer = Conv2dAddReLU.of(conv)
    x = torch.randn(1, 16, 8, 8, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            pairs = [(layer(x), conv(x).relu()), (layer(x, x), (conv(x) + x).relu())]
    except RuntimeError as error:
        _log.info('cuDNN does not fuse %s convolutions with what follows: %s', dtype, error)
        return False
    return all(torch.allclose(one.float(), other.float(), rtol=0.02, atol=0.02) for one, other in pairs)


def fuse_additions(model: nn.Module) -> int:
    """Rewrites the blocks inside a model whose code adds to a convolution and rectifies; gives the number of fusions.

    A block becomes an ``fx.GraphModule`` with the same submodules, in place; the model itself stays what it is.
    """
    fused = 0
    for name, block in list(model.named_modules()):
        convs = [child for child in block.children() if is_plain(child)]
        if not name or not convs or has_hooks(block) or isinstance(block, (nn.Sequential, fx.GraphModule)):
            continue
        graph = trace(block)
        count = 0 if graph is None else _rewrite(block, graph)
        if count:
            new = fx.GraphModule(block, graph, type(block).__name__)
            new.add_module('folded', Folded())  # refuses training mode
            parent, _, own = name.rpartition('.')
            setattr(model.get_submodule(parent), own, new.eval())
            fused += count
    return fused


def _rewrite(block: nn.Module, graph: fx.Graph) -> int:
    """Puts one call in the place of each convolution, addition and ReLU of a graph."""
    targets = [node.target for node in graph.nodes if node.op == 'call_module']
    order = {node: number for number, node in enumerate(graph.nodes)}

    def convolution(node: fx.Node) -> fx.Node | None:
        """The call of a plain convolution that gives a node, and nothing else."""
        while node.op == 'call_module' and type(block.get_submodule(node.target)) in (Folded, nn.Identity):
            if len(node.users) != 1:
                return None
            node = node.args[0]
        takes_one = node.op == 'call_module' and len(node.users) == 1 and targets.count(node.target) == 1
        if not takes_one or len(node.args) != 1 or node.kwargs or not is_plain(block.get_submodule(node.target)):
            return None
        return node

    found = 0
    for relu in list(graph.nodes):
        if not _is_relu(block, relu):
            continue
        (source,) = relu.args[:1]
        terms = [source]
        if _is_addition(source) and len(source.users) == 1:
            terms = list(source.args)
        calls = [call for term in terms if (call := convolution(term)) is not None]
        conv = max(calls, key=order.get, default=None)  # the others are there before it
        if conv is None:
            continue
        between = [node for node in graph.nodes if order.get(conv, -1) < order.get(node, -1) < order[relu]]
        if any(_changes(block, node, conv.args[0]) for node in between):
            continue
        rest = [term for term in terms if convolution(term) is not conv]
        layer = Conv2dAddReLU.of(block.get_submodule(conv.target))
        parent, _, own = conv.target.rpartition('.')
        setattr(block.get_submodule(parent), own, layer)
        with graph.inserting_before(relu):
            new = graph.call_module(conv.target, (conv.args[0], *rest))
        order[new] = order[relu]
        relu.replace_all_uses_with(new)
        _erase(graph, relu, new)
        found += 1
    return found


def _erase(graph: fx.Graph, node: fx.Node, new: fx.Node) -> None:
    """Removes a node and those before it that nobody else reads; in-place ones among them, too."""
    inputs = [each for each in node.all_input_nodes if each is not new]
    graph.erase_node(node)
    for each in inputs:
        if not each.users and each.op != 'placeholder':
            _erase(graph, each, new)


def _is_relu(block: nn.Module, node: fx.Node) -> bool:
    if node.op == 'call_module':
        module = block.get_submodule(node.target)
        return type(module) is nn.ReLU and not has_hooks(module)
    is_function = node.op == 'call_function' and node.target in (F.relu, torch.relu)
    return is_function and isinstance(node.args[0] if node.args else None, fx.Node)


def _is_addition(node: fx.Node) -> bool:
    is_function = node.op == 'call_function' and node.target in _ADDITIONS
    is_method = node.op == 'call_method' and node.target in ('add', 'add_')
    two = len(node.args) == 2 and all(isinstance(arg, fx.Node) for arg in node.args)
    return (is_function or is_method) and two and not node.kwargs and node.args[0] is not node.args[1]


def _changes(block: nn.Module, node: fx.Node, value: fx.Node) -> bool:
    """Whether a node writes into the value that a convolution reads."""
    if not node.args or node.args[0] is not value:
        return False
    if node.op == 'call_module':
        return bool(getattr(block.get_submodule(node.target), 'inplace', False))
    if node.op == 'call_method':
        return node.target.endswith('_')
    return node.target in _IN_PLACE or bool(node.kwargs.get('inplace'))
