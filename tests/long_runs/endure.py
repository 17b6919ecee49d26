"""Endurance: calls of the operators, cycles of training and testing, runs that are killed while they save.

Prints JSON: memory (resident, MB), threads and open files at eleven moments, and how the killed runs ended.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / 'tests/support')]

from saving import run  # noqa: E402

from icconv_mm.checkpoints import safe  # noqa: E402
from icconv_mm.engine import AtomicCheckpointHook  # noqa: E402
from icconv_mm.layers import ICConv2d  # noqa: E402

ITERATIONS = 60
TRAIN = """
import sys
from saving import run
from icconv_mm.engine import AtomicCheckpointHook
print(repr(run(sys.argv[1], int(sys.argv[2]), AtomicCheckpointHook, resume=True, max_keep_ckpts=1)[-1]))
"""


class Figures:
    """What a process holds, noted at eleven moments of ``count`` steps.

    The log of each run is not counted: mmengine keeps it open until the process ends.
    """

    def __init__(self, count: int) -> None:
        self.every = max(count // 10, 1)
        self.values: dict[str, list] = {'memory_mb': [], 'threads': [], 'files': []}

    def note(self, step: int) -> None:
        if step % self.every:
            return
        status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
        self.values['memory_mb'].append(round(int(status['VmRSS'].split()[0]) / 1024, 1))
        self.values['threads'].append(int(status['Threads']))
        targets = [os.path.realpath(path) for path in Path('/proc/self/fd').iterdir()]
        self.values['files'].append(sum(not target.endswith('.log') for target in targets))


def calls(count: int) -> dict[str, list]:
    """Forward and backward passes of sizes, patterns and weights that change."""
    figures, rng = Figures(count), random.Random(0)
    conv = ICConv2d(16, 16, [(8, 1, 1), (8, 2, 2)])
    for step in range(count + 1):
        x = torch.randn(rng.randint(1, 3), 16, rng.randint(1, 24), rng.randint(1, 24))
        if step % 3 == 0:
            first = rng.randint(1, 15)
            conv = ICConv2d(16, 16, [(first, 1, rng.randint(1, 5)), (16 - first, 2, 3)])
        if step % 2:
            conv(x).sum().backward()
        else:
            with torch.no_grad():
                conv(x), conv(x)
        figures.note(step)
    return figures.values


def cycles(count: int, folder: Path) -> dict[str, list]:
    """Runs of mmengine in one process: training, validation, saving."""
    figures = Figures(count)
    for step in range(count + 1):
        run(folder / f'run{step}', 3, AtomicCheckpointHook, max_keep_ckpts=1)
        for kept in (MMLogger, MessageHub, Visualizer):  # mmengine holds those of every run until the process ends
            kept._instance_dict.clear()
        figures.note(step)
    return figures.values


def kills(count: int, folder: Path) -> dict[str, int]:
    """Kill a run at random moments, resume it, and compare its last loss with that of a run left alone."""
    rng, result = random.Random(0), dict(kills=0, while_saving=0, unreadable=0, runs=0, other_loss=0)
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), 'OMP_NUM_THREADS': '1'}

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, '-c', TRAIN, str(folder / name), str(ITERATIONS)]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    expected = start('whole').communicate()[0].split()[-1]
    while result['kills'] < count:
        name = f'killed{result["runs"]}'
        saved = folder / name / 'last_checkpoint'
        for attempt in range(1000):
            process, before = start(name), _time_of(saved)
            while process.poll() is None and _time_of(saved) == before:
                time.sleep(0.002)  # each attempt makes progress
            time.sleep(rng.random() * 0.05)
            if attempt < 5:
                process.send_signal(signal.SIGKILL)
            output, error = process.communicate()
            if process.returncode == 0:
                break
            if process.returncode != -signal.SIGKILL:
                raise SystemExit(error.decode())
            result['kills'] += 1
            result['while_saving'] += bool(list((folder / name).glob('.*.part')))
            try:
                safe.load(saved.read_text())
            except Exception:
                result['unreadable'] += 1
        result['runs'] += 1
        result['other_loss'] += output.split()[-1] != expected
    return result


def _time_of(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--calls', type=int, default=20_000)
    parser.add_argument('--cycles', type=int, default=200)
    parser.add_argument('--kills', type=int, default=50)
    args = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        options = f'--calls {args.calls} --cycles {args.cycles} --kills {args.kills}'
        report = dict(command=f'tests/long_runs/endure.py {options}')
        report['kills'] = kills(args.kills, Path(folder, 'kills')) if args.kills else None
        report['calls'] = calls(args.calls) if args.calls else None
        report['cycles'] = cycles(args.cycles, Path(folder, 'cycles')) if args.cycles else None
    report['seconds'] = round(time.monotonic() - start)
    print(json.dumps(report, indent=1))


if __name__ == '__main__':
    main()
