"""Where figures come from: when, by what, on which machine and with which versions they were measured."""

import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from icconv_mm import __version__, versions


def circumstances(command: str, device: str = 'cpu') -> dict[str, Any]:
    """When, by what, where and with which versions something is measured."""
    return {'date': datetime.now(timezone.utc).isoformat(timespec='seconds'), 'command': command, **origin(device)}


def origin(device: str) -> dict[str, Any]:
    """Where figures come from: the machine, and the versions of Python, torch, this package and OpenMMLab."""
    versions_by_name = {name: versions.installed(name) for name in versions.SUPPORTED}
    return {
        'machine': machine(device),
        'versions': {
            'python': platform.python_version(),
            'icconv_mm': __version__,
            **{name: version[1] for name, version in versions_by_name.items() if version},
            'torch': torch.__version__,  # with what it was built for, which the distribution may not say
        },
    }


def machine(device: str) -> str:
    """The processor, its threads, and the GPU if that is the device."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        cpu = next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), cpu)
    except OSError:
        pass
    gpu = f', {torch.cuda.get_device_name(device)}' if device.startswith('cuda') else ''
    return f'{cpu}, {torch.get_num_threads()} of {os.cpu_count()} threads{gpu}'
