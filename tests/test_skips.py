"""Skipped tests: for a listed reason only, and in a clone without the folder beside it no comparison of networks."""

import os
import re
import subprocess
import sys

import pytest
from skips import REASONS, allowed

PARITY = ('tests/tasks/detection/test_anchors.py', 'tests/parity/test_pose_ae.py', 'tests/parity/test_sepc.py',
          'tests/checkpoints/sources/test_pyconv_checkpoints.py', 'tests/checkpoints/sources/test_ic_conv.py',
          'tests/parity/test_icconv.py')  # fmt: skip


def run(repo, *arguments, **env):
    paths = os.pathsep.join(str(repo / 'tests' / name) for name in ('', 'support'))
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([paths, os.environ.get('PYTHONPATH', '')]), **env}
    command = [sys.executable, '-m', 'pytest', '-q', '-rs', '-p', 'no:cacheprovider', *arguments]
    return subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True).stdout


@pytest.mark.parametrize('reason', ['too slow today', 'reference data not found', ''])
def test_other_reasons_are_none(reason):
    assert not allowed(reason)


def test_a_skip_for_another_reason_fails(repo, tmp_path):
    reasons = {'listed': 'published patterns not found in /x', 'unlisted': 'I am tired'}
    for name, reason in reasons.items():
        text = f'import pytest\n\ndef test_{name}():\n    pytest.skip({reason!r})\n'
        (tmp_path / f'test_{name}.py').write_text(text)
    printed = run(repo, '-c', os.devnull, '-p', 'conftest', '-p', 'no:xdist', str(tmp_path))
    assert '1 failed, 1 skipped' in printed
    assert 'I am tired: not one of the reasons in tests/support/skips.py' in printed


@pytest.mark.slow
def test_without_the_folder_beside_the_checkout(repo, tmp_path):
    """Only networks with published patterns are not compared."""
    printed = run(repo, *PARITY, ICCONV_MM_SHARED=str(tmp_path))
    skipped = re.findall(r'^SKIPPED \[\d+\] [^ ]+ (.*)$', printed, re.MULTILINE)
    libraries = REASONS['a library that is not installed']
    assert skipped and all(re.search(rf'published patterns|{libraries}', line) for line in skipped), printed
    assert re.search(r'^\d+ passed, \d+ skipped', printed, re.MULTILINE), printed
