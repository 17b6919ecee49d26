"""Finding the convolutions of a module that feed only a norm, a ReLU, or both; folding of norms into them."""

import copy
import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from icconv_mm import compat
from icconv_mm.compat import ConvModule
from icconv_mm.layers import ICConv2d, PyConv2d, ScaleEqualizedConv2d
from icconv_mm.layers.fast_eval import declares, has_zero_border
from icconv_mm.torch_private import has_hooks


class Folded(nn.Identity):
    """Placeholder of a layer that is now part of the convolution before it."""

    def train(self, mode: bool = True) -> 'Folded':
        """Sets the mode as ``nn.Module.train``; training mode is an error."""
        if mode:
            raise RuntimeError(
                'this model is deployed (icconv_mm.deploy): its batch norms are part of the convolutions, so '
                'it cannot be trained. Train the model that it was made from'
            )
        return super().train(mode)


def fold_norm(conv: nn.Module, norm: _BatchNorm) -> nn.Module:
    """Returns a new convolution, with bias, that computes ``norm(conv(x))`` of two modules in evaluation mode."""
    if not isinstance(conv, PyConv2d):
        return fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
    new, begin = copy.deepcopy(conv), 0
    for level in new.pyconv_levels:
        part = slice(begin, begin + level.out_channels)
        begin = part.stop
        tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        mean, var, weight, bias = (None if tensor is None else tensor[part] for tensor in tensors)
        level.weight, level.bias = fuse_conv_bn_weights(level.weight, level.bias, mean, var, norm.eps, weight, bias)
    return new


@torch.no_grad()
def fold_integrated_norms(module: nn.Module) -> int:
    """Folds the integrated norms of a module, in place; returns their number.

    In evaluation mode such a norm is linear. A module whose exact class has ``norms_and_convs`` names each norm and the
    convolutions whose sum it normalises. Offsets of deformable convolutions depend on the input, not the output, and
    stay unchanged.
    """
    if not declares(module, 'norms_and_convs'):
        return 0
    folded = 0
    for name, convs in module.norms_and_convs():
        norm = getattr(module, name)
        if norm is None or not has_statistics(norm) or any(type(conv) is not ScaleEqualizedConv2d for conv in convs):
            continue
        mean, bias = norm.running_mean, norm.bias
        for conv in convs:  # all terms of the sum are scaled, the first is shifted
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, mean, norm.running_var, norm.eps, norm.weight, bias
            )
            mean = bias = torch.zeros_like(norm.running_mean)
        setattr(module, name, None)
        module.add_module(f'{name}_folded', Folded().eval())  # refuses training mode; it is never called
        folded += 1
    return folded


def has_statistics(norm: nn.Module) -> bool:
    """Whether a batch norm has running statistics."""
    return norm.running_mean is not None and norm.running_var is not None


_log = logging.getLogger(__name__)

# exact types: a subclass may use its weight differently
FOLDABLE = (*compat.CONVOLUTIONS, ICConv2d, PyConv2d)
# Modules of the libraries that call layers of their parts one by one, in code that cannot be traced.
_TAKE_PARTS = ('mmdet.models.dense_heads.tood_head.TaskDecomposition',)
_PLAIN = tuple(kind for kind in compat.CONVOLUTIONS if issubclass(kind, nn.Conv2d))


class Chain(NamedTuple):
    """A convolution and the norm and ReLU after it, at least one of the two, as names of submodules."""

    conv: str
    norm: str | None
    relu: str | None


def find_chains(container: nn.Module) -> list[Chain] | None:
    """Returns the chains of the convolutions that ``container`` itself calls, in the order of the calls.

    The module is traced in evaluation mode, with submodules as single steps. If that fails, because the code reads
    values or types of its arguments, the result is None.
    """
    called = list(_called(container))
    may_follow = [module for module in called if type(module) is nn.ReLU or is_batch_norm(module)]
    if not may_follow or not any(type(module) in FOLDABLE for module in called):
        return []
    if type(container).forward is ConvModule.forward:
        return _of_conv_module(container)
    graph = trace(container)
    return None if graph is None else _in_graph(container, graph)


def taken_apart(model: nn.Module) -> set[nn.Module]:
    """Returns modules whose layers other code calls or reads: their own code does not show the use."""
    apart: set[nn.Module] = set()
    for container in model.modules():
        if f'{type(container).__module__}.{type(container).__qualname__}' in _TAKE_PARTS:
            apart |= set(container.modules())
        below = any(True for child in container.children() for _ in child.children())
        for node in (trace(container) or fx.Graph()).nodes if below else ():
            if node.op in ('call_module', 'get_attr'):
                *parents, _ = str(node.target).split('.')
                parents = parents[:-1] if node.op == 'get_attr' else parents
                apart |= {container.get_submodule('.'.join(parents[: i + 1])) for i in range(len(parents))}
    return apart


def _called(container: nn.Module) -> Iterator[nn.Module]:
    """Returns submodules that the container can call: children, also those in lists."""
    for child in container.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from _called(child)
        else:
            yield child


def _of_conv_module(module: ConvModule) -> list[Chain]:
    """Returns the chain of a module of mmcv that has its steps in a list instead of in code."""
    if getattr(module, 'efficient_conv_bn_eval_forward', None) is not None:  # it folds the norm at every call
        return []
    there = {'conv': True, 'norm': module.with_norm, 'act': module.with_activation}
    steps = [step for step in module.order if there[step]]
    _, *after = steps[steps.index('conv') :]
    norm = module.norm_name if after[:1] == ['norm'] else None
    relu = 'activate' if after[norm is not None :][:1] == ['act'] else None
    return _known_chain(module, Chain('conv', norm, relu))


def trace(container: nn.Module) -> fx.Graph | None:
    """Returns the graph of a module's code, with submodules as single steps; None if it cannot be traced."""
    parameters = inspect.signature(container.forward).parameters.values()
    several = any(p.default is not p.empty or p.kind is not p.POSITIONAL_OR_KEYWORD for p in parameters)
    code = getattr(container.forward, '__code__', None)
    if several or code is None or 'isinstance' in code.co_names:
        return None  # a trace would show one of several branches
    held = [(values, dict(values)) for values in (vars(container), container._buffers)]
    try:
        graph = _Tracer().trace(container)
    except Exception as error:  # any error of code that gets no tensor
        _log.debug('%s is not traced, its convolutions stay: %s', type(container).__name__, error)
        return None
    finally:
        keeps = False
        for values, before in held:  # values that the code keeps from one call to the next
            keeps |= any(before.get(name, container) is not value for name, value in values.items())
            values.clear()
            values.update(before)
    return None if keeps else graph


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        """Treats a module that the code creates, such as a slice of an ``nn.Sequential``, as part of the code."""
        if all(m is not module for module in self.root.modules()):
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def _in_graph(container: nn.Module, graph: fx.Graph) -> list[Chain]:
    calls = Counter(id(container.get_submodule(node.target)) for node in graph.nodes if node.op == 'call_module')
    # parameters that the code itself reads must not change
    read = {str(node.target).rpartition('.')[0] for node in graph.nodes if node.op == 'get_attr'}

    whole = tuple(f'{node.target}.' for node in graph.nodes if node.op == 'call_module')

    def called_once(node: fx.Node | None) -> bool:
        if node is None or node.target in read or node.target.startswith(whole):
            return False
        return calls[id(container.get_submodule(node.target))] == 1

    chains = []
    for node in graph.nodes:
        if node.op != 'call_module' or not called_once(node):
            continue
        norm = _next(node)
        if not called_once(norm) or not is_batch_norm(container.get_submodule(norm.target)):
            norm = None
        relu = _next(norm or node)
        relu = relu if called_once(relu) else None
        chains += _known_chain(container, Chain(node.target, norm and norm.target, relu and relu.target))
    return chains


def _next(node: fx.Node) -> fx.Node | None:
    """Returns the module that is the only user of a node, if there is one."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != 'call_module' or users[0].args != (node,) or users[0].kwargs:
        return None
    return users[0]


def _known_chain(container: nn.Module, chain: Chain) -> list[Chain]:
    """Returns the part of a chain whose modules are of known kinds, if any."""
    conv = container.get_submodule(chain.conv)
    if not _is_convolution(conv):
        return []
    norm, relu = chain.norm, chain.relu
    if norm is not None:
        module = container.get_submodule(norm)
        if not is_batch_norm(module) or module.num_features != conv.out_channels:
            norm = relu = None
    if relu is not None:
        module = container.get_submodule(relu)
        if type(module) is not nn.ReLU or has_hooks(module):
            relu = None
    return [Chain(chain.conv, norm, relu)] if norm or relu else []


def _is_convolution(module: nn.Module) -> bool:
    if type(module) not in FOLDABLE or has_hooks(module):
        return False
    if type(module) is PyConv2d:
        return module.has_plain_levels(module.pyconv_levels)
    # the filters of a grouped transposed convolution have another order, which torch's folding does not support
    return not (isinstance(module, nn.ConvTranspose2d) and module.groups > 1)


def is_plain(module: nn.Module) -> bool:
    """Whether a module is an ordinary convolution with zeros at the border, in numbers of pixels."""
    return type(module) in _PLAIN and has_zero_border(module) and not has_hooks(module)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a batch norm of known code that uses running statistics."""
    is_standard = type(module).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    return is_standard and not module.training and not has_hooks(module) and has_statistics(module)
