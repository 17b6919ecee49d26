"""A convolution, the addition of a shortcut and ReLU as one layer, in the blocks of a network."""

import operator
from collections.abc import Callable
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from icconv_mm.bricks import CONVOLUTIONS, BaseModule
from icconv_mm.deployment.chains import trace
from icconv_mm.deployment.folding import Folded
from icconv_mm.layers.normalization import Shortcut
from icconv_mm.utils.torch_private import has_hooks, is_compiling

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
_OVERWRITE = 'overwrite'  # the second argument of a rewritten block

# (convolution, whether there is an addend) -> the kind of layer that computes it with ReLU, or None to leave it
Choose = Callable[[nn.Module, bool], type[nn.Module] | None]


class Addend(Enum):
    """What a rewritten block adds to the convolution that makes its output."""

    INPUT = 'the input of the block'
    OWN = 'a map that the block makes for this'
    OTHER = 'anything else, or nothing'


def fuse_additions(model: nn.Module, choose: Choose) -> int:
    """Rewrites the blocks inside a model whose code adds to a convolution and rectifies; gives the number of fusions.

    A block becomes an ``fx.GraphModule`` with the same submodules, in place; the model itself stays what it is. Where
    the layers can write over an addend, so do rows of blocks: see :class:`BlockSequence`.
    """
    fused, addends = 0, {}
    for name, block in list(model.named_modules()):
        convs = [child for child in block.children() if choose(child, True)]
        if not name or not convs or has_hooks(block) or isinstance(block, (nn.Sequential, fx.GraphModule)):
            continue
        graph = trace(block)
        count, addend = (0, None) if graph is None else _rewrite(block, graph, choose)
        if count:
            new = fx.GraphModule(block, graph, type(block).__name__)
            new.add_module('folded', Folded())  # refuses training mode
            _put(model, name, new.eval())
            fused += count
            if addend is not None:
                addends[new] = addend
    for name, module in list(model.named_modules()):
        if name and _is_row(module) and any(block in addends for block in module):
            _put(model, name, BlockSequence(module, [addends.get(block) for block in module]).eval())
    return fused


class BlockSequence(nn.Sequential):
    """Blocks in a row, each of which may write its output over the shortcut that it adds.

    Nothing but the row sees that map: the block makes it, or it is the output of the block before. A block that
    somebody listens to, or that is called by itself, leaves all maps as they are.

    Args:
        blocks: The blocks.
        addends: What each adds to its last convolution; None for a block that overwrites nothing.
    """

    def __init__(self, blocks: nn.Sequential, addends: list[Addend | None]):
        super().__init__()
        vars(self).update(vars(blocks))  # with the hooks and attributes that it has
        self.addends = addends

    def forward(self, x: Tensor) -> Tensor:
        """What the blocks make of ``x``, which stays as it is."""
        if is_compiling() or type(x) is not Tensor:
            return super().forward(x)
        is_free = False  # whether x is a map that nothing else sees
        for block, addend in zip(self, self.addends):
            is_heard = any(map(has_hooks, block.modules()))
            overwrites = addend is Addend.OWN or (addend is Addend.INPUT and is_free)
            x = block(x, True) if overwrites and not is_heard else block(x)
            is_free = addend is not None and not is_heard
        return x


def _is_row(module: nn.Module) -> bool:
    """Whether a module calls its children one after the other, and code elsewhere can call nothing else of it."""
    if type(module).forward is not nn.Sequential.forward or 'forward' in vars(module):
        return False
    kinds = type(module).__mro__
    own = [vars(kind) for kind in kinds[: kinds.index(nn.Sequential)] if kind is not BaseModule]
    return not any(callable(value) for names in own for name, value in names.items() if not name.startswith('__'))


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition('.')
    setattr(model.get_submodule(parent), own, module)


def _rewrite(block: nn.Module, graph: fx.Graph, choose: Choose) -> tuple[int, Addend | None]:
    """Puts one call in the place of each convolution, addition and ReLU of a graph.

    Returns:
        How many, and what is added to the one that the block returns, if it does and its layer can write over it.
    """
    targets = [node.target for node in graph.nodes if node.op == 'call_module']
    order = {node: number for number, node in enumerate(graph.nodes)}

    def convolution(node: fx.Node) -> fx.Node | None:
        """The call of a convolution, of the kinds that are fused, that gives a node, and nothing else."""
        while node.op == 'call_module' and type(block.get_submodule(node.target)) in (Folded, nn.Identity):
            if len(node.users) != 1:
                return None
            node = node.args[0]
        takes_one = node.op == 'call_module' and len(node.users) == 1 and targets.count(node.target) == 1
        if not takes_one or len(node.args) != 1 or node.kwargs or not choose(block.get_submodule(node.target), True):
            return None
        return node

    found, addend = 0, None
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
        kind = choose(block.get_submodule(conv.target), bool(rest))
        _put(block, conv.target, kind.of(block.get_submodule(conv.target)))
        if getattr(kind, 'may_overwrite', False) and [user.op for user in relu.users] == ['output']:
            addend = _addend(block, graph, rest[0])
        extra = (_overwrite(graph),) if addend in (Addend.INPUT, Addend.OWN) else ()
        with graph.inserting_before(relu):
            new = graph.call_module(conv.target, (conv.args[0], *rest, *extra))
        order[new] = order[relu]
        relu.replace_all_uses_with(new)
        _erase(graph, relu, new)
        found += 1
    return found, addend


def _addend(block: nn.Module, graph: fx.Graph, node: fx.Node) -> Addend:
    if [each for each in graph.nodes if each.op == 'placeholder'] == [node]:
        return Addend.INPUT
    is_own = node.op == 'call_module' and len(node.users) == 1 and _makes_a_map(block.get_submodule(node.target))
    return Addend.OWN if is_own else Addend.OTHER


def _makes_a_map(module: nn.Module) -> bool:
    """Whether the output of a module is a map of its own, not a view of what it reads."""
    if type(module).forward in (nn.Sequential.forward, Shortcut.forward):
        last = [each for each in module if type(each) is not Folded][-1:]
        return any(map(_makes_a_map, last))
    return type(module) in CONVOLUTIONS


def _overwrite(graph: fx.Graph) -> fx.Node:
    """A new argument of the graph, False by default."""
    (x,) = (node for node in graph.nodes if node.op == 'placeholder')
    with graph.inserting_after(x):
        return graph.placeholder(_OVERWRITE, default_value=False)


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
