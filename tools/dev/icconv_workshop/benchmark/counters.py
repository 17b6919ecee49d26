"""What a call uses: backends, memory."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from icconv_mm.ops import explain

_OPERATORS = ('inception_conv2d', 'inception_conv2d_relu', 'pyconv2d', 'pyconv2d_relu')


class _Choices(TorchDispatchMode):
    """Counts the backends that serve the convolutions of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        if func.namespace == 'icconv_mm' and func.overloadpacket.__name__ in _OPERATORS:
            self.counts[explain(func.overloadpacket.__name__, *args).chosen] += 1
        return func(*args, **(kwargs or {}))


def count_backends(call: Callable[[], object]) -> Counter[str]:
    """How many inception and pyramidal convolutions of a call each backend serves."""
    with _Choices() as choices:
        call()
    return choices.counts


def peak_memory(call: Callable[[], object], device: str) -> int:
    """Bytes of tensors that a call holds at most at one time, beyond those that are there before it."""
    if device.startswith('cuda'):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    _allocations(call)  # torch counts no release of what was allocated before the first profile
    events = _allocations(call)
    totals = [event['args']['Total Allocated'] for event in events]
    return max(totals) - (totals[0] - events[0]['args']['Bytes'])


def _allocations(call: Callable[[], object]) -> list[dict]:
    """What is allocated and released in a call, in order."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'trace.json')
        profile.export_chrome_trace(str(path))
        trace = json.loads(path.read_text())['traceEvents']
    return sorted((event for event in trace if event.get('name') == '[memory]'), key=lambda event: event['ts'])
