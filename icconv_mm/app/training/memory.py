"""What a training on the CPU of this machine takes, as estimates: memory, of which it tells the free part, and time."""

import re
import time
from math import prod
from pathlib import Path

import torch
from mmengine.device import get_device

from icconv_mm.app.runs.threads import is_narrow, threads_for
from icconv_mm.registry import MODELS

_MEMORY = Path('/proc/meminfo')
# Of twelve trainings: docs/performance.md, "Memory of a training step".
_LIBRARIES = 1.5e9  # bytes of torch, OpenMMLab, images that are read, a neck and heads
_WEIGHT = 16  # bytes of a weight, its gradient and the two moments of AdamW
_SIDE, _CALLS = 128, 8  # pixels of small images, and how often they are computed
_STEP = 2.5  # bytes of a step for each byte that the backbone keeps for its gradient
# Time of a detector: its maps in that of the backbone's, and the second stage, whose regions have one size, in that of
# the backbone on 192 x 192 pixels. Of `small`: 5.3, 6.9, 8.6, 11.4 s for 131 images of 160, 192, 256 and 320 pixels.
_MAPS, _REGIONS, _MEASURED = {True: 2.3, False: 3.0}, {True: 2.1, False: 0.0}, 192**2


def free_memory() -> float | None:
    """Returns the bytes that programs can take on this machine, or None: on a GPU, or where Linux does not tell it.

    A limit of a container is not seen.
    """
    if get_device() != 'cpu' or not _MEMORY.is_file():
        return None
    available = re.search(r'^MemAvailable: *(\d+) kB', _MEMORY.read_text(), re.MULTILINE)
    return available and int(available.group(1)) * 1024.0


def training_memory(backbone: dict, size: tuple[int, int]) -> tuple[float, float]:
    """Returns the bytes that a training on the CPU takes, an estimate: of the process, and of each image of a batch.

    What the backbone keeps of two small images for its gradient is counted. It is proportional to their area, and what
    neck, heads and gradients take is about proportional to it.

    Args:
        backbone: Its config.
        size: Width and height of the images, in pixels.
    """
    kept: list[torch.Tensor] = []
    network = MODELS.build({key: value for key, value in backbone.items() if key != 'init_cfg'}).train()
    images = torch.zeros(2, 3, _SIDE, _SIDE)  # batch norm refuses one whose last map is one pixel
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda storage: None):
        network(images)
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in kept)}
    for parameter in network.parameters():
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    maps = sum(storages.values())
    share = prod(size) / (len(images) * _SIDE**2)
    return _LIBRARIES + _WEIGHT * sum(parameter.numel() for parameter in network.parameters()), _STEP * maps * share


def training_times(backbone: dict, *sizes: tuple[int, int]) -> list[float] | None:
    """Returns the seconds that a training on the CPU takes for an image of each size, without validations; else None.

    Args:
        backbone: Its config.
        sizes: Widths and heights of images, in pixels.
    """
    if get_device() != 'cpu':
        return None
    network = MODELS.build({key: value for key, value in backbone.items() if key != 'init_cfg'}).train()
    images, times = torch.zeros(2, 3, _SIDE, _SIDE), []
    with threads_for(backbone):
        for _ in range(_CALLS):
            begun = time.perf_counter()
            sum(output.sum() for output in network(images)).backward()
            times.append(time.perf_counter() - begun)
    narrow = is_narrow(backbone)
    pixel = min(times[1:]) / (len(images) * _SIDE**2)  # the least: another process takes turns
    return [pixel * (_MAPS[narrow] * prod(size) + _REGIONS[narrow] * _MEASURED) for size in sizes]
