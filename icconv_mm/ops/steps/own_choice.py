"""What the steps ask that choose for themselves whether their kernel runs.

The choice of an operator (:mod:`icconv_mm.ops.dispatch.backend`), and its dispatch, cost more than a small map. Where
such a step does not run, its caller takes torch's own operators, whatever backend is in use.
"""

import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from icconv_mm.ops.dispatch import backend
from icconv_mm.utils.torch_private import in_transform_or_mode, is_jit_or_onnx_tracing

_log = logging.getLogger(__name__)


def is_recorded(*tensors: Tensor | None) -> bool:
    """Whether something looks at the single steps of a call, or a gradient of one of its tensors is recorded."""
    if in_transform_or_mode() or is_jit_or_onnx_tracing():
        return True
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def may_run_on_cpu() -> bool:
    """Whether the backend in use is the CPU's, or none is."""
    return backend.requested() in ('auto', 'cpu')


def computes_convolutions(
    library: str, forms: Callable[[Tensor, Tensor, Tensor], Sequence[Tensor]], device: torch.device, dtype: torch.dtype
) -> bool:
    """Whether a library has the convolutions it is used for, and computes what it must; tried on a small map.

    Versions of a library lack some of them for some dtypes.

    Args:
        library: Name of the library, for the log.
        forms: Function from x ``[1, 16, 8, 8]``, weight ``[16, 16, 3, 3]`` and bias ``[16]`` to what the library makes
            of them with padding 1: ``relu(y)``, ``relu(y + x)`` and, where it is used alone, the convolution ``y``.
        device, dtype: Device and dtype of the trial.
    """
    # no random numbers: what follows is to draw the same ones whether it comes here or not
    x, weight = torch.arange(1024.0).sin().view(1, 16, 8, 8), torch.arange(2304.0).cos().view(16, 16, 3, 3)
    x, weight = (each.to(device, dtype).contiguous(memory_format=torch.channels_last) for each in (x, weight))
    try:
        found = forms(x, weight, weight.new_ones(16))
    except RuntimeError as error:
        _log.info('%s does not serve convolutions in %s: %s', library, dtype, error)
        return False
    y = F.conv2d(x.float(), weight.float(), padding=1) + 1
    expected = y.relu(), (y + x.float()).relu(), y
    return all(torch.allclose(one.float(), other, rtol=0.02, atol=0.2) for one, other in zip(found, expected))
