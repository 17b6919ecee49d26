"""Mixed precision on CPUs, which mmengine's ``AmpOptimWrapper`` refuses."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.utils import apply_to
from torch import nn

from icconv_mm.errors import InputError
from icconv_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Trains in bfloat16 under ``torch.autocast('cpu')``; weights and optimiser states stay in float32.

    bfloat16 has the range of float32, so that no loss scaling is needed.

    Args:
        modules: Names of the model's children whose ``forward`` runs under autocast, with float32 outputs; None for the
            whole training step. Detectors name backbone and neck: mmcv's RoIAlign and NMS, which their heads call, have
            no bfloat16 kernels on CPUs.
        kwargs: Arguments of ``OptimWrapper``.

    Raises:
        InputError: On the first step, if the model has none of ``modules``.
    """

    def __init__(self, modules: Sequence[str] | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.modules = modules

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Returns the context of one training step."""
        inner, names = model.module if is_model_wrapper(model) else model, self.modules or ()
        modules = [child for name in names if isinstance(child := getattr(inner, name, None), nn.Module)]
        if names and not modules:
            raise InputError(f'CPUAmpOptimWrapper: {type(inner).__name__} has none of the modules {tuple(names)}')
        with super().optim_context(model), ExitStack() as stack:
            if self.modules is None:
                stack.enter_context(torch.autocast('cpu', torch.bfloat16))
            for module in modules:
                stack.enter_context(_autocast_forward(module))
            yield


@contextmanager
def _autocast_forward(module: nn.Module) -> Iterator[None]:
    """Makes ``module`` compute in bfloat16 and return float32 inside this context."""
    plain = module.forward

    def forward(*args, **kwargs):
        with torch.autocast('cpu', torch.bfloat16):
            outputs = plain(*args, **kwargs)
        return apply_to(outputs, lambda value: getattr(value, 'dtype', None) is torch.bfloat16, torch.Tensor.float)

    module.forward = forward  # shadows the class's method, for this object alone
    try:
        yield
    finally:
        del module.forward
