"""The table of kernels that the figures of the layers speak for; it is committed by hand."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from icconv_mm.errors import InputError
from icconv_mm.ops.dispatch.kernel_table import Measured, load
from icconv_tools.gpu_acceptance.bench import Bench, Measurement
from icconv_tools.gpu_acceptance.kernels import CHOSEN, REFERENCE
from icconv_tools.gpu_acceptance.measurements.layers import DENSE

FILE = 'kernel_table.json'


def measurements(bench: Bench) -> Iterator[Measurement]:
    yield Measurement('table/kernels', _write, 1)


def _write(bench: Bench) -> dict:
    """Writes the table beside the file of results."""
    architecture = '0.0' if bench.dry else '.'.join(map(str, torch.cuda.get_device_capability()))
    dtype = str(bench.options.tensor_dtype).removeprefix('torch.')
    measured = []
    for figure in bench.results.figures.values():
        if 'operator' not in figure:
            continue
        others = (DENSE, CHOSEN)
        microseconds = {name: time['GPU'] for name, time in figure['times'].items() if name not in others}
        sizes = {name: figure[name] for name in ('group_in', 'group_out', 'groups', 'stride', 'pixels')}
        if set(microseconds) - {REFERENCE}:
            levels = figure.get('levels', '')
            measured.append(
                Measured(figure['operator'], architecture, dtype, **sizes, microseconds=microseconds, levels=levels)
            )
    if not measured:
        raise InputError('no kernel was measured: there is no table to write')
    path = bench.folder / FILE
    write_table(measured, path, source=bench.results.path.name)
    return {'file': path.name, 'measured': len(measured), 'summary': f'{len(measured)} classes in {path}'}


def write_table(measured: Iterable[Measured], path: Path, source: str) -> None:
    """Puts measurements into a table, in place of older ones of the same class and number of pixels.

    Args:
        measured: The figures.
        path: The file, which is made where there is none.
        source: File of the figures, of those that name none themselves.
    """
    entries = {(each.shape, each.pixels): each for each in (load(path) if path.exists() else [])}
    for each in measured:
        entries[each.shape, each.pixels] = Measured(**{**asdict(each), 'source': each.source or source})
    rows = [json.dumps(asdict(each)) for _, each in sorted(entries.items())]
    path.write_text('{"entries": [\n' + ',\n'.join(rows) + '\n]}\n')
    load(path)  # an error here, not on somebody's GPU
