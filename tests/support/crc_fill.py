"""Networks and inputs of the reference data that are filled by rule (tests/data/README.md)."""

import math
import zlib

import numpy as np
import torch


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The fill rule crc32-v1: one generator per official key."""
    rng = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    if len(shape) >= 2:
        return rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    if key.endswith(('running_var', '.weight')):
        return rng.uniform(0.5, 1.5, shape)
    return rng.standard_normal(shape) * 0.1


def official_state_dict(meta: dict) -> dict[str, torch.Tensor]:
    """The weights of a case under the official keys, in float64; their fill is checked."""
    scaled = set(meta['residual_bn_scaled_keys'])
    state = {}
    for key, shape in meta['state_dict'].items():
        value = fill(key, tuple(shape)) * (meta['residual_bn_scale'] if key in scaled else 1)
        state[key] = torch.as_tensor(np.asarray(value))
    for key, check in meta['fill_check'].items():  # the fill itself, before what is computed with it
        np.testing.assert_allclose(state[key].flatten()[:3], check['first3'], rtol=1e-12)
    return state


def official_input(meta: dict) -> torch.Tensor:
    """The input of a case, in float64."""
    rng = np.random.RandomState(zlib.crc32(f'input:{meta["case"]}'.encode()))
    x = torch.from_numpy(rng.standard_normal(tuple(meta['input_shape'])))
    assert abs(x.sum().item() - meta['input_sum']) < 1e-8
    return x


def deviations(reference, tensors: dict[str, torch.Tensor]) -> dict[str, float]:
    """Largest deviation of every stored tensor from the one found, relative to its maximum."""
    result = {}
    for name, info in reference.meta['tensors'].items():
        assert list(tensors[name].shape) == info['full_shape'], name
        channel, space = info['channel_stride'], info['spatial_stride'] or 1
        part = tensors[name][:, ::channel].double()
        part = part[..., ::space, ::space] if part.ndim == 4 else part
        result[name] = reference.deviation(name, part)
    return result
