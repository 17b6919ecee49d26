"""Endurance: calls of the operators, and cycles of training and testing.

Prints JSON: memory (resident, MB), threads and open files at eleven moments.
"""

import argparse
import json
import os
import random
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

from icconv_mm.engine.saving import AtomicCheckpointHook  # noqa: E402
from icconv_mm.layers import ICConv2d  # noqa: E402


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
        for manager in (MMLogger, MessageHub, Visualizer):  # mmengine holds those of every run until the process ends
            manager._instance_dict.clear()
        figures.note(step)
    return figures.values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--calls', type=int, default=20_000)
    parser.add_argument('--cycles', type=int, default=200)
    args = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        options = f'--calls {args.calls} --cycles {args.cycles}'
        report = dict(command=f'tests/long_runs/endure.py {options}')
        report['calls'] = calls(args.calls) if args.calls else None
        report['cycles'] = cycles(args.cycles, Path(folder, 'cycles')) if args.cycles else None
    report['seconds'] = round(time.monotonic() - start)
    print(json.dumps(report, indent=1))


if __name__ == '__main__':
    main()
