"""A run that is killed or fails while it saves leaves a checkpoint from which it continues."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from saving import run

from icconv_mm.apis.preparation import _latest_checkpoint
from icconv_mm.checkpoints import safe
from icconv_mm.engine import AtomicCheckpointHook
from icconv_mm.errors import InputError


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix != '.py')


@pytest.mark.parametrize('keep', [1, 2, -1])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_keeps_what_mmengine_keeps(tmp_path, keep, by_epoch):
    ends = {}
    for hook in (CheckpointHook, AtomicCheckpointHook):
        run(tmp_path / hook.__name__, 4, hook, max_keep_ckpts=keep, by_epoch=by_epoch)
        ends[hook] = files(tmp_path / hook.__name__)
    assert ends[AtomicCheckpointHook] == ends[CheckpointHook]
    named = (tmp_path / 'AtomicCheckpointHook/last_checkpoint').read_text()
    assert safe.load(named)['message_hub']['runtime_info']['last_ckpt'] == named


def test_the_best_one_is_kept(tmp_path):
    for hook in (CheckpointHook, AtomicCheckpointHook):
        run(tmp_path / hook.__name__, 5, hook, max_keep_ckpts=1, save_best='score', rule='greater')
    assert files(tmp_path / 'AtomicCheckpointHook') == files(tmp_path / 'CheckpointHook')


@pytest.mark.parametrize('best', [{}, {'save_best': 'score', 'rule': 'greater'}])
def test_at_every_step_of_saving_there_is_a_whole_checkpoint(tmp_path, monkeypatch, best):
    """Looked at whenever something is written, renamed or removed."""
    seen = []

    def watched(function):
        def call(*args, **kwargs):
            named = tmp_path / 'run/last_checkpoint'
            if named.exists():
                seen.append(safe.load(named.read_text())['meta']['iter'])
            for path in (tmp_path / 'run').glob('[bi]*.pth'):
                safe.load(path)
            return function(*args, **kwargs)

        return call

    for owner, name in ((os, 'fsync'), (Path, 'replace'), (LocalBackend, 'put'), (LocalBackend, 'remove')):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    run(tmp_path / 'run', 4, AtomicCheckpointHook, max_keep_ckpts=1, **best)
    assert seen == sorted(seen) and {1, 2, 3} <= set(seen)


def test_mmengine_leaves_none(tmp_path, monkeypatch):
    """What the hook is for."""
    _fill_disk_at(monkeypatch, 3)
    with pytest.raises(OSError):
        run(tmp_path, 4, CheckpointHook, max_keep_ckpts=1)
    with pytest.raises(safe.CheckpointError):
        for path in tmp_path.glob('*.pth'):
            safe.load(path)


def _fill_disk_at(monkeypatch, number: int) -> None:
    """The disk is full halfway through the checkpoint of this number."""
    put, count = LocalBackend.put, []

    def full(self, obj, filepath):
        count.append(filepath)
        if len(count) == number:
            put(self, obj[: len(obj) // 2], filepath)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, obj, filepath)

    monkeypatch.setattr(LocalBackend, 'put', full)


@pytest.mark.parametrize('number', [1, 2, 3, 4])
@pytest.mark.parametrize('best', [{}, {'save_best': 'score', 'rule': 'greater'}])
def test_a_full_disk_at_every_save(tmp_path, monkeypatch, number, best):
    whole = run(tmp_path / 'whole', 4, AtomicCheckpointHook, max_keep_ckpts=1, **best)
    with monkeypatch.context() as patch:
        _fill_disk_at(patch, number)
        with pytest.raises(InputError, match=r'parts/(iter|best).*\.pth: .*No space left on device'):
            run(tmp_path / 'parts', 4, AtomicCheckpointHook, max_keep_ckpts=1, **best)
    assert not list((tmp_path / 'parts').glob('.*'))
    rest = run(tmp_path / 'parts', 4, AtomicCheckpointHook, resume=True, max_keep_ckpts=1, **best)
    assert rest == whole[len(whole) - len(rest) :] and (number == 1 or len(rest) < 4)


def test_a_dangling_last_checkpoint(tmp_path):
    assert _latest_checkpoint(str(tmp_path)) is None
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_9.pth'))
    with pytest.raises(InputError, match=r'names .*iter_9\.pth, which is gone, and there is no other'):
        _latest_checkpoint(str(tmp_path))
    for name in ('iter_3.pth', 'iter_12.pth', 'best_score.pth'):
        torch.save({}, tmp_path / name)
    assert _latest_checkpoint(str(tmp_path)) == str(tmp_path / 'iter_12.pth')
    (tmp_path / 'last_checkpoint').write_text('')
    assert _latest_checkpoint(str(tmp_path)) == str(tmp_path / 'iter_12.pth')


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path):
    """Two runs, each killed several times while or after it saves; both end where the one that was not killed ends."""
    code = textwrap.dedent("""
        import sys
        from saving import run
        from icconv_mm.engine import AtomicCheckpointHook
        losses = run(sys.argv[1], 120, AtomicCheckpointHook, resume=True, max_keep_ckpts=1)
        print(repr(losses[-1]))
    """)
    command = [sys.executable, '-c', code]
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    whole = subprocess.run([*command, str(tmp_path / 'whole')], env=env, check=True, capture_output=True, text=True)
    kills = 0
    for number in range(2):
        folder = tmp_path / f'killed{number}'
        for attempt in range(200):
            process = subprocess.Popen([*command, str(folder)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            saved = folder / 'last_checkpoint'
            before = saved.stat().st_mtime_ns if saved.exists() else 0
            while process.poll() is None and (not saved.exists() or saved.stat().st_mtime_ns == before):
                time.sleep(0.01)  # let every attempt make progress
            time.sleep(0.001 * ((7 * attempt + 3 * number) % 41))
            if attempt < 4:
                process.send_signal(signal.SIGKILL)
            out, error = process.communicate()
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, error.decode()
            kills += 1
            if saved.exists():
                safe.load(saved.read_text())
        assert out.split()[-1].decode() == whole.stdout.split()[-1]
    assert kills >= 6
