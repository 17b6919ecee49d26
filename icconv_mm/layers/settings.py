"""The settings of a layer: the one place from which conversion, ``deploy`` and other copies know them."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import nn

from icconv_mm.errors import InputError

_OF_PARAMETERS = ('device', 'dtype')  # what a copy shares is somewhere and of some type already


def settings_of(layer: nn.Module) -> dict[str, Any]:
    """The arguments by which the constructor of a layer makes one like it, apart from parameters and their place.

    An argument is the attribute of its name, ``bias`` whether there is one. A layer that keeps its arguments otherwise
    has a method ``settings`` that returns them. So an argument that a class gets later is carried by every copy, or is
    an AttributeError; none is left out in silence.
    """
    if hasattr(layer, 'settings'):
        return layer.settings()
    settings = {name: getattr(layer, name) for name in _arguments(type(layer))}
    return settings | ({'bias': layer.bias is not None} if 'bias' in settings else {})


def layer_like(layer: nn.Module, kind: type[nn.Module], weight: nn.Parameter | None = None, **changes) -> nn.Module:
    """A layer of another kind with the settings, parameters and mode of a convolution.

    Args:
        layer: An ``nn.Conv2d``, of whatever class.
        kind: A class with its parameters ``weight`` and ``bias``.
        weight: What it has instead of the weight of ``layer``.
        **changes: Settings in which it differs.

    Raises:
        InputError: If ``layer`` has a setting, other than its default, that ``kind`` does not know; names it.
    """
    settings, known = settings_of(layer) | changes, _arguments(kind)
    for name in settings.keys() - known.keys():
        if settings[name] != _arguments(type(layer))[name].default:
            raise InputError(f'{kind.__name__} has no {name}, and the layer has {name}={settings[name]!r}')
    # without parameters: those of the layer are put in their place
    new = kind(**{name: value for name, value in settings.items() if name in known}, device='meta')
    new.weight, new.bias = layer.weight if weight is None else weight, layer.bias
    return new.train(layer.training)


@cache
def _arguments(kind: type) -> Mapping[str, inspect.Parameter]:
    parameters = dict(inspect.signature(kind).parameters)
    return {name: each for name, each in parameters.items() if name not in _OF_PARAMETERS}
