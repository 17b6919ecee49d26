#!/usr/bin/env bash
# torch 2.13.0, mmengine 0.10.7.
# Good guess: a DataLoader with persistent workers that nothing refers to any more tells its workers to end, and they do.
# What happens: they do if the last reference is dropped. If the loader is part of a cycle, as in mmengine, whose Runner
# and loop refer to each other, the collector finalises the queues first: the message is lost, and the loader waits 5 s
# for each worker, one after the other.
# Who is hurt: whoever trains or tests more than once in a process (notebooks, sweeps, suites of tests): 10 s for each
# loader of two workers, 40 s for eight, at a moment of the collector's choice.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'torch==2.13.0' 'mmengine==0.10.7' 'setuptools==80.9.0' 'numpy==1.26.4' 'opencv-python-headless==4.11.0.86'
cat > "$folder/try.py" <<'P'
import gc
import sys
import time
from importlib.metadata import version

import torch
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
from torch.utils.data import DataLoader

print(', '.join(f'{name} {version(name)}' for name in ('torch', 'mmengine')))
WORKERS = 2


class Holder:
    """Refers to a loader, and may refer to itself."""


class Model(torch.nn.Module):
    def test_step(self, batch):
        return batch


class Count(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return {'count': len(results)}


def loader():
    return DataLoader(torch.arange(8.0), num_workers=WORKERS, persistent_workers=True)


def plain(in_cycle):
    holder = Holder()
    holder.loader = loader()
    if in_cycle:
        holder.itself = holder
    list(holder.loader)
    return holder, holder.loader


def tested():
    made = loader()
    options = dict(work_dir=sys.argv[1], test_dataloader=made, test_evaluator=Count(), test_cfg={}, log_level='ERROR')
    runner = Runner(Model(), **options)
    runner.test()
    return runner, made


def dropped(make, *args):
    gc.collect()
    holder, made = make(*args)
    del made
    begun = time.monotonic()
    del holder
    gc.collect()
    seconds = time.monotonic() - begun
    print(f'{make.__name__}{args}: {seconds:.1f} s until {WORKERS} workers have ended')
    return seconds


counted, cycle, runner = dropped(plain, False), dropped(plain, True), dropped(tested)
sys.exit(not min(cycle, runner) > 4.5 * WORKERS > counted)
P
OMP_NUM_THREADS=1 "$python" -W ignore "$folder/try.py" "$folder/run"
