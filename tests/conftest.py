"""Fixtures that every test may use."""

import os
import random

# Before torch: tests compute on tiny tensors, in several processes at once. Threads would only wait for each other.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ['ICCONV_MM_OFFLINE'] = '1'  # no test fetches a published pattern by using its name

from pathlib import Path

import numpy as np
import pytest
import torch

try:
    from mmengine.registry import DefaultScope
except ImportError:  # torch alone: no runner, no scope
    DefaultScope = None

REPO = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get('ICCONV_MM_SHARED', REPO.parent / 'shared'))


@pytest.fixture(scope='session')
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder of reference data (parity tensors, published patterns, COCO sample); the test skips without it."""
    if not SHARED.is_dir():
        pytest.skip(f'reference data not found at {SHARED} (set ICCONV_MM_SHARED)')
    return SHARED


@pytest.fixture(scope='module', autouse=True)
def _no_default_scope():
    """A runner sets mmengine's default scope for the whole process; the next file must not depend on it."""
    if DefaultScope is not None:
        DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def _fixed_seeds():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
