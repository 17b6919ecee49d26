"""Whether a module may be passed over."""

from torch import nn


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody listens to a module or has replaced its forward; then it is called as it is."""
    return bool(module._forward_hooks or module._forward_pre_hooks or 'forward' in vars(module))
