"""What a network costs: parameters, FLOPs, time."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from mmcv.ops import deform_conv
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from icconv_workshop.benchmark.timing import Options, interleave


@HOOKS.register_module()
class StepTimes(Hook):
    """Seconds of every training step, data included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def before_train(self, runner: Runner) -> None:
        self._start = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self._start)
        self._start = now

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@contextmanager
def _deformable() -> Iterator[list[int]]:
    """FLOPs of the deformable convolutions of mmcv, whose products in place torch's counter does not see."""
    counted: list[int] = []

    def run(x, offset, weight, *rest):
        y = original(x, offset, weight, *rest)
        counted.append(2 * y.numel() * weight[0].numel())
        return y

    original = deform_conv.deform_conv2d
    with patch.object(deform_conv, 'deform_conv2d', run):
        yield counted


def network_costs(model: nn.Module, batch: dict) -> dict[str, float]:
    """Parameters, and FLOPs and milliseconds per image of a test step.

    Args:
        model: A model of an OpenMMLab library, trained, as what a detector suggests counts too.
        batch: What its test step takes.
    """
    model.eval()
    images = len(batch['inputs'])
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter, _deformable() as deformable:
            model.test_step(batch)
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        times = interleave({'test': lambda: model.test_step(batch)}, Options(repeats=5, warmup=0, device=device))
    return {
        'parameters': sum(parameter.numel() for parameter in model.parameters()),
        'flops': (counter.get_total_flops() + sum(deformable)) / images,
        'milliseconds': 1e3 * times['test'].median / images,
    }
