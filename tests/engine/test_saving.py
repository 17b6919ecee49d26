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

from icconv_mm.checkpoints import reading
from icconv_mm.engine.saving import AtomicCheckpointHook
from icconv_mm.errors import InputError
from icconv_mm.run_folder import last_checkpoint


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
    assert reading.read(named)['message_hub']['runtime_info']['last_ckpt'] == named


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
                seen.append(reading.read(named.read_text())['meta']['iter'])
            for path in (tmp_path / 'run').glob('[bi]*.pth'):
                reading.read(path)
            return function(*args, **kwargs)

        return call

    for owner, name in ((os, 'fsync'), (Path, 'replace'), (LocalBackend, 'put'), (LocalBackend, 'remove')):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    run(tmp_path / 'run', 4, AtomicCheckpointHook, max_keep_ckpts=1, **best)
    assert seen == sorted(seen) and {1, 2, 3} <= set(seen)


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


@pytest.mark.parametrize('number', [1, 3])
def test_a_full_disk_at_last_checkpoint(tmp_path, monkeypatch, number):
    """The checkpoint is whole, but nothing names it: the run goes on from the one before."""
    whole, folder = run(tmp_path / 'whole', 4, AtomicCheckpointHook, max_keep_ckpts=1), tmp_path / 'parts'
    flush, count = os.fsync, []

    def full(descriptor):
        if '.icconv_' in os.readlink(f'/proc/self/fd/{descriptor}'):
            count.append(1)
            if len(count) == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        with pytest.raises(InputError, match=r'parts/last_checkpoint: .*No space left on device'):
            run(folder, 4, AtomicCheckpointHook, max_keep_ckpts=1)
    assert not list(folder.glob('.*'))
    there = [f'iter_{number - 1}.pth', f'iter_{number}.pth', 'last_checkpoint'] if number > 1 else ['iter_1.pth']
    assert files(folder) == there
    rest = run(folder, 4, AtomicCheckpointHook, resume=True, max_keep_ckpts=1)
    assert rest == whole[number - 1 :]


def test_a_dangling_last_checkpoint(tmp_path):
    assert last_checkpoint(str(tmp_path)) is None
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_9.pth'))
    with pytest.raises(InputError, match=r'names .*iter_9\.pth, which is gone; there is no other'):
        last_checkpoint(str(tmp_path))
    for age, name in enumerate(('iter_12.pth', 'iter_3.pth')):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    for text, said in ((str(tmp_path / 'iter_9.pth'), r'.*iter_9\.pth'), ('', 'nothing')):
        (tmp_path / 'last_checkpoint').write_text(text)
        with pytest.raises(InputError, match=rf'names {said}, which is gone; the newest one there is: .*iter_12\.pth$'):
            last_checkpoint(str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize('ends', [signal.SIGKILL, signal.SIGTERM])
def test_kills_at_random_moments(tmp_path, ends):
    """Two runs, each killed several times while or after it saves; both end where the one that was not killed ends.

    They average their weights, and keep the best checkpoint.
    """
    code = textwrap.dedent("""
        import sys
        from saving import run
        from icconv_mm.engine.saving import AtomicCheckpointHook
        options = dict(max_keep_ckpts=1, save_best='score', rule='greater', hooks=[dict(type='EMAHook')])
        losses = run(sys.argv[1], 120, AtomicCheckpointHook, resume=True, **options)
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
                process.send_signal(ends)
            out, error = process.communicate()
            if process.returncode == 0:
                break
            assert process.returncode == -ends, error.decode()
            kills += 1
            if saved.exists():
                reading.read(saved.read_text())
            for path in folder.glob('*.pth'):
                reading.read(path)
        assert out.split()[-1].decode() == whole.stdout.split()[-1]
        (averaged, *_), (other, *_) = (
            [reading.read(path)['ema_state_dict'] for path in work_dir.glob('iter_120.pth')]
            for work_dir in (folder, tmp_path / 'whole')
        )
        assert all(torch.equal(value, other[key]) for key, value in averaged.items())
    assert kills >= 6
