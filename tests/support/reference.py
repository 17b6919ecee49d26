"""Reference data of the official implementations: all of it where it is beside the checkout, else from tests/data."""

import json
import os
import re
import zlib
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parents[2]
REDUCED = REPO / 'tests' / 'data' / 'parity'
SHARED = Path(os.environ.get('ICCONV_MM_SHARED', REPO.parent / 'shared'))


def from_seed(case: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The input of a case that its names are the seed of."""
    rng = np.random.RandomState(zlib.crc32(f'input:{case}:{name}'.encode()))
    return rng.standard_normal(shape).astype(np.float32)


class Reference:
    """One case: its description and its tensors, of which the repository may hold every n-th value only.

    Args:
        folder: Where ``case.json`` and, unless the description is all there is, ``case.npz`` are.
        case: Name of the case.
    """

    def __init__(self, folder: Path, case: str):
        self.meta = json.loads((folder / f'{case}.json').read_text())
        self._sampled = self.meta.get('sampled', {})
        self._tensors = {}
        if (folder / f'{case}.npz').is_file():
            with np.load(folder / f'{case}.npz') as stored:
                self._tensors = {name: stored[name] for name in stored.files}
        self._tensors |= {name: from_seed(case, name, shape) for name, shape in self.meta.get('seeded', {}).items()}

    @property
    def names(self) -> list[str]:
        return list(self._tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> np.ndarray:
        """A tensor that is there in full, such as an input."""
        assert name not in self._sampled, f'{name} is sampled: compare with pair()'
        return self._tensors[name]

    def pair(self, name: str, values) -> tuple[np.ndarray, np.ndarray]:
        """What `found`, a whole tensor, has where the reference has values, and these.

        Args:
            name: Name of the tensor.
            values: Array or CPU tensor of the reference's full shape.
        """
        values, stored = np.asarray(values), self._tensors[name]
        sample = self._sampled.get(name)
        if sample is None:
            assert values.shape == stored.shape, name
            return values, stored
        assert list(values.shape) == sample['shape'], name
        return values.reshape(-1)[:: sample['step']], stored

    def deviation(self, name: str, values) -> float:
        """Largest deviation of `found` from the reference, relative to the largest value of this."""
        values, stored = self.pair(name, values)
        return float(np.abs(values - stored).max() / max(np.abs(stored).max(), 1e-30))


def folder_of(family: str, case: str) -> Path:
    """Where a case is: in the full set, else in the repository."""
    full = SHARED / 'parity' / family
    return full if (full / f'{case}.json').is_file() else REDUCED / family


def pattern_of(request, case: str) -> Path:
    """The pattern file of a case of IC-Conv; the test skips where it is a published one that is not at hand."""
    if published := re.match(r'(ic_resnet\d+)_(detection|segmentation|human_pose)_(k\d+)', case):
        network, task, kernel = published.groups()
        return request.getfixturevalue('published_patterns') / task / f'{network}_{kernel}.json'
    return folder_of('icconv', case) / 'patterns' / f'{case}.json'
