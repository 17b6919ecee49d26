"""Networks as training might leave them."""

from torch import nn


def normal(module: nn.Module, std: float = 0.3) -> nn.Module:
    """Returns the module with random parameters; the norms as well, of which a new network has zeros."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module


def with_random_weights(network: nn.Module) -> nn.Module:
    """Returns the network in evaluation mode; no weight, mean or variance equals another."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim == 4 else 0.3)
    for name, buffer in network.named_buffers():
        if name.endswith(('running_mean', 'running_var')):
            buffer.uniform_(0.5, 1.5)
    return network.eval()
