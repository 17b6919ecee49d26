"""Make tests/data/parity from the full reference data: what the tests read, of large results every n-th value.

What belongs to a published pattern stays out, as its channel counts would tell the pattern.

Examples:
  python tests/long_runs/reduce_reference.py ../shared/parity
"""

import argparse
import fnmatch
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'support'))
from reference import from_seed  # noqa: E402

TARGET = ROOT / 'tests' / 'data' / 'parity'
VALUES = 1024  # of a result
CONVOLUTION = ('type', 'in', 'out', 'kernel', 'stride', 'groups')

# family -> cases, keys of their descriptions, results (all other tensors are inputs or small, and stay whole)
FILLED = ['case', 'source', 'constructor', 'residual_bn_scale', 'residual_bn_scaled_keys', 'input_seed', 'input_shape',
          'input_sum', 'param_count', 'bn_eps_momentum', 'tensors', 'fill_check', 'state_dict']  # fmt: skip
FAMILIES = {
    'icconv': ('*_selfmade', [*FILLED, 'pattern_file'], ['*']),
    'pyconv': ('*', [*FILLED, 'modules'], ['*']),
    'pyconvseg': ('*', FILLED, ['*']),
    'sepc': ('*', ['source', 'args', 'mode', 'channel_step', 'inputs', 'state_dict', 'heads', 'backbone_keys', '*.py'],
             ['cls*', 'loc*', 'buffer/*']),
    'pose_ae': ('*', ['source', 'args', 'variants', 'rows'], ['out/*', '*grad_sum', 'grad_out*']),
}  # fmt: skip


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def step_of(shape: tuple[int, ...]) -> int:
    """The smallest prime that leaves at most VALUES values and divides no side, so that every row and column counts."""
    step = -(-int(np.prod(shape)) // VALUES)
    while any(side > 1 and side % step == 0 for side in shape) or any(step % n == 0 for n in range(2, step)):
        step += 1
    return step


def describe(meta: dict, keys: list[str]) -> dict:
    """The part of a description that tests read."""
    kept = {key: value for key, value in meta.items() if matches(key, keys)}
    if 'residual_bn_scale' in kept:
        sizes = ('full_shape', 'channel_stride', 'spatial_stride')
        kept['tensors'] = {name: {key: info[key] for key in sizes} for name, info in kept['tensors'].items()}
        kept['fill_check'] = {key: {'first3': check['first3']} for key, check in kept['fill_check'].items()}
    if 'modules' in kept:
        kept['modules'] = {
            name: {key: info[key] for key in CONVOLUTION}
            for name, info in kept['modules'].items()
            if info['type'] == 'Conv2d'
        }
    if 'variants' in kept:
        kept['variants'] = [v for v in kept['variants'] if not v.get('cfg', {}).get('use_udp')]
    if 'rows' in kept:
        kept['rows'] = [row for row in kept['rows'] if not row['use_udp']]
    return kept


def reduce_case(source: Path, target: Path, keys: list[str], results: list[str]) -> None:
    """One description, and its tensors where it has some."""
    kept, tensors, sampled, seeded = describe(json.loads(source.read_text()), keys), {}, {}, {}
    if source.with_suffix('.npz').is_file():
        with np.load(source.with_suffix('.npz')) as stored:
            for name in stored.files:
                if re.search(r'udp(1|_)', name):  # another convention of coordinates, which the package lacks
                    continue
                value = stored[name]
                if np.array_equal(value, from_seed(source.stem, name, value.shape)):
                    seeded[name] = list(value.shape)
                    continue
                tensors[name] = value
                if matches(name, results) and value.size > VALUES:
                    step = step_of(value.shape)
                    tensors[name] = value.reshape(-1)[::step]
                    sampled[name] = {'step': step, 'shape': list(value.shape)}
        np.savez_compressed(target.with_suffix('.npz'), **tensors)
    kept |= {key: value for key, value in (('sampled', sampled), ('seeded', seeded)) if value}
    target.write_text(json.dumps(kept, separators=(',', ':')) + '\n')


def reduce_all(full: Path, target: Path) -> list[Path]:
    """Every case of `full` that may be in the repository; the descriptions written."""
    written = []
    for family, (cases, keys, results) in FAMILIES.items():
        (target / family).mkdir(parents=True, exist_ok=True)
        for source in sorted((full / family).glob(f'{cases}.json')):
            written.append(target / family / source.name)
            reduce_case(source, written[-1], keys, results)
    shutil.copytree(full / 'icconv/patterns', target / 'icconv/patterns', dirs_exist_ok=True)  # made for the tests
    return written


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('full', type=Path, help='the folder parity of the full reference data')
    args = parser.parse_args(argv)
    written = reduce_all(args.full, TARGET)
    size = sum(path.stat().st_size for path in TARGET.rglob('*') if path.is_file())
    print(f'{len(written)} cases; {size / 1e6:.2f} MB in {TARGET}')


if __name__ == '__main__':
    main()
