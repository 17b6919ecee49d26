"""Fixtures that every test may use."""

import functools
import gc
import os
import random
import re
import sys

# Before torch: tests compute on tiny tensors, in several processes at once. Threads would only wait for each other.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ['ICCONV_MM_OFFLINE'] = '1'  # no test fetches a published pattern by using its name

from pathlib import Path

import numpy as np
import pytest
import torch
from reference import SHARED, Reference, folder_of
from skips import allowed
from torch.utils.data import _utils

from icconv_mm import versions

try:
    from mmengine.config import utils
    from mmengine.registry import DefaultScope

    # it parses all model indexes of a library for each config that inherits from one of the library's
    utils.load = functools.cache(utils.load)

    from icconv_mm.registry import LIBRARIES
except ImportError:  # torch alone: no runner, no scope
    DefaultScope, LIBRARIES = None, ()

_utils.MP_STATUS_CHECK_INTERVAL = 0.2  # seconds that torch waits for a worker of a loader that is garbage: five

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture
def cfg(tmp_path):
    """Makes the config of the smallest run, in a folder of its own, with changes."""
    pytest.importorskip('mmengine')
    from small_runs import config

    return functools.partial(config, tmp_path)


@pytest.fixture(scope='session')
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope='session')
def reference():
    """Loads a case by family and name: in full where the folder beside the checkout has it, else from tests/data."""
    return lambda family, case: Reference(folder_of(family, case), case)


def beside_the_checkout(name: str, what: str) -> Path:
    if not (SHARED / name).is_dir():
        pytest.skip(f'{what} not found in {SHARED / name} (set ICCONV_MM_SHARED)')
    return SHARED / name


@pytest.fixture(scope='session')
def published_patterns() -> Path:
    """The folder of the published pattern files, named ``patterns``; the test skips without it."""
    return beside_the_checkout('patterns', 'published patterns')


@pytest.fixture(scope='session')
def coco_sample() -> Path:
    """Four images of COCO with their annotations; the test skips without them."""
    return beside_the_checkout('coco_sample', 'images')


@pytest.fixture(scope='session')
def real_samples() -> Path:
    """A few images of public data sets with their labels as they lie outside; the test skips without them."""
    return beside_the_checkout('real_samples', 'images')


@pytest.fixture(scope='session')
def reported_cases() -> Path:
    """Small sets of annotations that were once read with another meaning; the test skips without them."""
    return beside_the_checkout('cases_2026_11_27', 'images')


def pytest_runtest_setup(item):
    """The collector leaves out what has been imported: mmengine collects at every dataset, half a second without."""
    if len(sys.modules) > pytest_runtest_setup.modules:
        gc.collect()
        gc.freeze()
        pytest_runtest_setup.modules = len(sys.modules)


pytest_runtest_setup.modules = 0


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """A test that meets a library of OpenMMLab which is not installed skips."""
    outcome = yield
    error = str(outcome.excinfo[1]) if outcome.excinfo else ''
    for library in LIBRARIES:
        is_named = re.search(rf"\b{library}\b.* not installed|No module named '{library}\b", error)
        if is_named and not versions.is_installed(library):
            outcome.force_exception(pytest.skip.Exception(f"could not import '{library}'"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that skips for a reason which tests/support/skips.py does not list fails."""
    report = (yield).get_result()
    if report.skipped and not hasattr(report, 'wasxfail') and not allowed(reason := report.longrepr[2]):
        report.outcome, report.longrepr = 'failed', f'{reason}: not one of the reasons in tests/support/skips.py'


@pytest.fixture(scope='module', autouse=True)
def _no_default_scope():
    """A runner sets mmengine's default scope for the whole process; the next file must not depend on it."""
    if DefaultScope is not None:
        DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def _forget_compilations():
    """Dynamo compiles a function a few times only, whichever tests of a process ask for it."""
    if 'torch._dynamo' in sys.modules:
        sys.modules['torch._dynamo'].reset()


@pytest.fixture(autouse=True)
def _fixed_seeds():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def weights_folder(tmp_path, monkeypatch):
    """An empty folder in the place of the package's weights."""
    from icconv_mm.checkpoints import shipped

    folder = tmp_path / 'weights'
    folder.mkdir()
    monkeypatch.setattr(shipped, 'FOLDER', folder)
    return folder
