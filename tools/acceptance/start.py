"""The begin of a call: which machine and version this is, and the file of results."""

import hashlib
from dataclasses import asdict
from pathlib import Path

import torch
from benchmarks.report import origin
from benchmarks.timing import Options

from acceptance.bench import HOME, Bench
from acceptance.record import Record
from icconv_mm.errors import InputError

DRY = Options(repeats=1, warmup=0, scale=0.03)
ON_GPU = Options(repeats=15, warmup=3, device='cuda')


def start(path: Path, dry: bool, command: str) -> Bench:
    """What the measurements get.

    Args:
        path: Path of the file of results.
        dry: Whether to do without a GPU.
        command: For a new file.

    Raises:
        InputError: There is no GPU; the file is of another machine or version, or cannot be there.
    """
    if not dry and not torch.cuda.is_available():
        raise InputError('torch finds no CUDA device; --dry-run does all this on the CPU, with tiny sizes')
    options = DRY if dry else ON_GPU
    facts = {**origin(options.device), 'options': asdict(options), 'source': source()}
    return Bench(options, path.resolve().parent, Record(path, facts, command))


def source() -> str:
    """A digest of the code that is measured: figures of two versions of a kernel must not stand in one file."""
    digest = hashlib.sha256()
    for folder in ('csrc', 'icconv_mm'):
        for path in sorted((HOME / folder).rglob('*')):
            if path.suffix in ('.py', '.cpp', '.h', '.inc', '.cu', '.cuh', '.json'):
                digest.update(f'{path.relative_to(HOME)}\0'.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
