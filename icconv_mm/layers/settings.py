"""The settings of a layer, from which conversion, ``deploy`` and other copies are made."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import nn

from icconv_mm.errors import InputError

_OF_PARAMETERS = ('device', 'dtype')  # parameters of a copy have a device and a dtype already


def settings_of(layer: nn.Module) -> dict[str, Any]:
    """Returns the arguments of a layer's constructor for an equal layer, without parameters and their device.

    An argument is the attribute of its name, ``bias`` whether there is one. A layer with other attributes has a method
    ``settings`` that returns them. So every copy has arguments that are added later, or raises an AttributeError.
    """
    if hasattr(layer, 'settings'):
        return layer.settings()
    settings = {name: getattr(layer, name) for name in _arguments(type(layer))}
    return settings | ({'bias': layer.bias is not None} if 'bias' in settings else {})


def layer_like(layer: nn.Module, kind: type[nn.Module], weight: nn.Parameter | None = None, **changes) -> nn.Module:
    """Returns a layer of another kind with the settings, parameters and mode of a convolution.

    Args:
        layer: An ``nn.Conv2d`` of any class.
        kind: A class with its parameters ``weight`` and ``bias``.
        weight: Replaces the weight of ``layer``.
        **changes: Settings that differ.

    Raises:
        InputError: If ``layer`` has a setting, other than its default, that ``kind`` does not have; the message names
            it.
    """
    settings, arguments = settings_of(layer) | changes, _arguments(kind)
    for name in settings.keys() - arguments.keys():
        if settings[name] != _arguments(type(layer))[name].default:
            raise InputError(f'{kind.__name__} has no {name}, and the layer has {name}={settings[name]!r}')
    # without parameters: those of the layer replace them
    new = kind(**{name: value for name, value in settings.items() if name in arguments}, device='meta')
    new.weight, new.bias = layer.weight if weight is None else weight, layer.bias
    return new.train(layer.training)


@cache
def _arguments(kind: type) -> Mapping[str, inspect.Parameter]:
    parameters = dict(inspect.signature(kind).parameters)
    return {name: parameter for name, parameter in parameters.items() if name not in _OF_PARAMETERS}
