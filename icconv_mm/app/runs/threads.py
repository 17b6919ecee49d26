"""The threads that a network's operators take on a CPU."""

import os
from collections.abc import Mapping
from typing import Any

import torch

WIDE = 64  # channels of a usual network's first stage


def is_narrow(backbone: Mapping[str, Any]) -> bool:
    """Returns whether the first stage of a backbone, given by its config, has fewer channels than usual ones."""
    return backbone.get('base_channels', WIDE) < WIDE


def choose_threads(cfg: Mapping[str, Any]) -> None:
    """Gives torch one thread for a narrow network, unless OMP_NUM_THREADS says how many.

    Its operators are short: a second thread saves no time, and beside another busy process both wait for each other.

    Args:
        cfg: The config of the run.
    """
    backbone = (cfg.get('model') or {}).get('backbone')
    if 'OMP_NUM_THREADS' not in os.environ and isinstance(backbone, Mapping) and is_narrow(backbone):
        torch.set_num_threads(1)
