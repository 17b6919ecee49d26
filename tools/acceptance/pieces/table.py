"""The table of kernels that the figures of the layers speak for; it is committed by hand."""

from collections.abc import Iterator

import torch

from acceptance.bench import Bench, Measurement
from acceptance.kernels import CHOSEN, REFERENCE
from acceptance.pieces.layers import DENSE
from icconv_mm.errors import InputError
from icconv_mm.ops.kernel_table import Measured, write_table

FILE = 'kernel_table.json'


def measurements(bench: Bench) -> Iterator[Measurement]:
    yield Measurement('table/kernels', _write, 1)


def _write(bench: Bench) -> dict:
    """Writes the table beside the file of results."""
    architecture = '0.0' if bench.dry else '.'.join(map(str, torch.cuda.get_device_capability()))
    dtype = str(bench.options.tensor_dtype).removeprefix('torch.')
    measured = []
    for figure in bench.record.figures.values():
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
    write_table(measured, path, source=bench.record.path.name)
    return {'file': path.name, 'measured': len(measured), 'summary': f'{len(measured)} classes in {path}'}
