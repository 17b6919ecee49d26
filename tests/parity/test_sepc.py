"""PConv, integrated batch norm and SEPC against tensors computed with the official implementation."""

import zlib

import crc_fill
import numpy as np
import pytest
import torch

from icconv_mm.checkpoints.sources.sepc import rename_neck
from icconv_mm.necks import SEPC

NARROW = [
    'sepc_pconv_c32_pyrA',
    'sepc_pconv_c32_pyrB',
    'sepc_ibn_c32_pyrA',
    'sepc_lite_noibn_c32_pyrA',
    'sepc_lite_c32_pyrA',
    'sepc_full_c32_pyrA',
    'sepc_full_c32_pyrA_train',
]
# Every 16th channel is stored, and means and deviations of all.
WIDE = [
    'sepc_pconv_c256_pyrA',
    'sepc_ibn_c256_pyrA',
    'sepc_ibn_c256_pyrA_train',
    'sepc_lite_noibn_c256_pyrA',
    'sepc_lite_c256_pyrA',
    'sepc_full_c256_pyrA',
    'sepc_full_c256_pyrB',
]


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The rule with offsets (weights and biases) a tenth as large."""
    return crc_fill.fill(key, shape) * (0.1 if 'conv_offset' in key else 1)


@pytest.fixture(scope='module')
def case(request, reference):
    """The meta data, the stored tensors, the neck in float64 and its input."""
    stored = reference('sepc', request.param)
    meta = stored.meta
    args = meta['args']
    neck = SEPC(
        args['in_channels'],
        args['out_channels'],
        args['num_outs'],
        args['Pconv_num'],
        args['pconv_deform'],
        args['lcconv_deform'],
        args['iBN'],
    )
    state = {
        rename_neck(key): torch.from_numpy(np.asarray(fill(key, tuple(s)))) for key, s in meta['state_dict'].items()
    }
    neck = neck.double().train(meta['mode'] == 'train')
    neck.load_state_dict(state)
    levels = []
    for name, info in meta['inputs'].items():
        rng = np.random.RandomState(zlib.crc32(f'input:{request.param}:{name}'.encode()))
        levels.append(torch.from_numpy(rng.standard_normal(info['shape'])))
    return meta, stored, neck, state, levels


@torch.no_grad()
def errors(case, dtype: torch.dtype) -> dict[str, float]:
    """Largest deviation of every stored tensor, relative to its maximum."""
    meta, stored, neck, state, levels = case
    neck = neck.to(dtype)
    neck.load_state_dict(state)
    tensors = {}
    for level, (cls, loc) in enumerate(neck([x.to(dtype) for x in levels])):
        for name, value in ((f'cls{level}', cls), (f'loc{level}', loc)):
            tensors[name] = value[:, :: meta['channel_step']]
            tensors[f'{name}_chmean'] = value.double().mean((2, 3))
            tensors[f'{name}_chstd'] = value.double().std((2, 3), unbiased=False)
    for key, value in neck.state_dict().items():
        tensors[f'buffer/{key}'] = value
    result = {}
    for name in stored.names:
        ours = f'buffer/{rename_neck(name[7:])}' if name.startswith('buffer/') else name
        result[name] = stored.deviation(name, tensors[ours].double())
    return result


@pytest.mark.parametrize('case', NARROW, indirect=True)
def test_float64(case):
    assert max(errors(case, torch.float64).values()) < 1e-6  # stored in float32


@pytest.mark.parametrize(
    'case', [*NARROW, *(pytest.param(name, marks=pytest.mark.slow) for name in WIDE)], indirect=True
)
def test_float32(case):
    assert max(errors(case, torch.float32).values()) < 1e-5
