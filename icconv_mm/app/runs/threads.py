"""The threads that a network's operators take on a CPU."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    if isinstance(backbone, Mapping) and _needs_one(backbone):
        torch.set_num_threads(1)


@contextmanager
def threads_for(backbone: Mapping[str, Any]) -> Iterator[None]:
    """Gives torch the threads of a network in a block, as :func:`choose_threads` does."""
    former = torch.get_num_threads()
    choose_threads({'model': {'backbone': backbone}})
    try:
        yield
    finally:
        torch.set_num_threads(former)


def _needs_one(backbone: Mapping[str, Any]) -> bool:
    return 'OMP_NUM_THREADS' not in os.environ and is_narrow(backbone)
