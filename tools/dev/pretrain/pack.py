"""Put a trained checkpoint into the package: icconv_mm/weights/NAME.safetensors, and its row in the card beside it.

Filters become float16; norms stay float32. Left out are the scores of a detector's classes and the states of optimizers
and averages; how boxes are corrected is the mean of the classes. The largest difference of an output that comes from
float16 is printed.

Examples:
  python tools/dev/pretrain/pack.py small work_dirs/pretrained/classifier.pth
  python tools/dev/pretrain/pack.py small work_dirs/detectors/RUN/epoch_2.pth --result 'box AP 12.3 %' \
      --command 'python tools/dev/pretrain/transfer.py data/stitched ...'
"""

import json
import re
import subprocess
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from icconv_mm.app.commands import command_line
from icconv_mm.app.runs.begin import begin
from icconv_mm.app.runs.config import config_beside
from icconv_mm.checkpoints import reading, safetensors, shipped
from icconv_mm.checkpoints.convert import checked_weights, sha256
from icconv_mm.errors import ArgumentError, InputError
from icconv_mm.files import atomic_write
from icconv_mm.models import create_model

LIMIT = 12 << 20  # bytes of all files together
DATA = {
    'classification': 'Tiny ImageNet, 200 classes of ImageNet',
    'detection': 'Tiny ImageNet, whose objects are stitched to larger images',
}
TERMS = 'images of ImageNet are for research'
CARD = 'README.md'
_TABLE = '<!-- written by tools/dev/pretrain/pack.py -->\n'
_COLUMNS = {
    'name': 'weights', 'data': 'trained on', 'terms': 'terms', 'result': 'result', 'num_classes': 'classes',
    'rounding': 'float16 changes', 'command': 'command', 'commit': 'commit', 'sha256': 'SHA-256 of the checkpoint',
}  # fmt: skip


def task_of(weights: Mapping[str, Tensor]) -> str:
    """Returns the task of a network by its keys; raises InputError for one that is not packed."""
    tasks = {'head.fc.weight': 'classification', 'roi_head.bbox_head.fc_cls.weight': 'detection'}
    if (task := next((task for key, task in tasks.items() if key in weights), None)) is None:
        raise InputError('neither a classifier nor a detector of two stages')
    return task


def packed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights for the package: filters as float16 where they stay finite, no counters, no classes."""
    content = {}
    for key, value in weights.items():
        if key.endswith('num_batches_tracked') or key.startswith('roi_head.bbox_head.fc_cls.'):
            continue
        if key.startswith('roi_head.bbox_head.fc_reg.'):
            value = value.unflatten(0, (-1, 4)).mean(0)
        half = value.half()
        content[key] = half if value.ndim > 1 and half.isfinite().all() else value.float()
    return content


def outputs(network: nn.Module) -> list[Tensor]:
    """Returns what a network computes of four random images: a classifier's logits, a detector's maps and proposals."""
    images = torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if not hasattr(network, 'rpn_head'):
            return [network(images)]
        maps = network.extract_feat(images)
        return [*maps, *(level for levels in network.rpn_head(maps) for level in levels)]


def rounding(network: nn.Module, weights: Mapping[str, Tensor], rounded: Mapping[str, Tensor]) -> tuple[float, float]:
    """Returns the largest difference of an output that rounded weights make, and the largest output."""
    network.load_state_dict(weights)
    whole = outputs(network.eval())
    same = {key: value for key, value in rounded.items() if value.shape == weights[key].shape}
    network.load_state_dict({**weights, **same})
    changed = outputs(network.eval())
    differences = [float((one - other).abs().max()) for one, other in zip(whole, changed)]
    return max(differences), max(float(output.abs().max()) for output in whole)


def pack(args: Namespace) -> Path:
    """Writes the file of a checkpoint; returns its path.

    Raises:
        MissingFileError, InputError: The checkpoint cannot be read or is of another network.
        ArgumentError: What the checkpoint does not say of itself is not given.
    """
    content = reading.read(args.checkpoint)
    weights, meta = checked_weights(content), content.get('meta') or {}
    task = task_of(weights)
    if task == 'classification':
        classes = len(weights['head.fc.bias'])
        network = create_model(args.backbone, num_classes=classes)
        last, recipe = meta['history'][-1], meta['recipe']
        known = dict(
            result=f'top-1 {last["top1"]:.1f} %',
            command=re.sub(r'(?<!\S)/\S+/', '', meta['command']),
            size=str(recipe['size'] // min(recipe.get('tiles', [1]))),
            classes=json.dumps(meta['dataset_meta']['classes']),
        )
    else:
        classes = len(weights['roi_head.bbox_head.fc_cls.bias']) - 1
        network, known = begin(config_beside(args.checkpoint)).build_model(), {}
    given = {name: getattr(args, name) for name in ('result', 'command') if getattr(args, name)}
    for name in ('result', 'command'):
        if name not in known | given:
            raise ArgumentError(name, f'{args.checkpoint} does not say it: give it')
    rounded = packed(weights)
    difference, largest = rounding(network, weights, rounded)
    head = subprocess.check_output(['git', 'rev-parse', 'HEAD'], cwd=Path(__file__).parent, text=True).strip()
    name = shipped.weights_name(args.backbone, task)
    metadata: dict[str, Any] = dict(
        name=name, task=task, backbone=f'configs/_base_/backbones/{args.backbone}.py', data=DATA[task], terms=TERMS,
        commit=args.commit or head, num_classes=str(classes), sha256=sha256(args.checkpoint),
        rounding=f'{difference:.2g} of {largest:.3g}', **known | given,
    )  # fmt: skip
    path = shipped.FOLDER / f'{name}{reading.SAFETENSORS}'
    text = safetensors.serialized(rounded, metadata)
    others = [other for other in shipped.FOLDER.glob(f'*{reading.SAFETENSORS}') if other != path]
    if (size := len(text) + sum(other.stat().st_size for other in others)) > LIMIT:
        raise InputError(f'{path.parent}: {size} bytes of weights, at most {LIMIT} come with the package')
    with atomic_write(path) as file:
        file.write(text)
    print(f'{path}: {len(text) / 1e6:.2f} MB; float16 changes outputs by {metadata["rounding"]} at most')
    return path


def table() -> str:
    """Returns the card's table of the files that are there, as Markdown."""
    rows = [list(_COLUMNS.values()), ['---'] * len(_COLUMNS)]
    for path in sorted(shipped.FOLDER.glob(f'*{reading.SAFETENSORS}')):
        metadata = reading.read_metadata(path) | {'name': f'`{shipped.SCHEME}{path.stem}`'}
        metadata |= {key: f'`{metadata[key]}`' for key in ('command', 'commit', 'sha256')}
        rows.append([metadata[key] for key in _COLUMNS])
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def write_card() -> None:
    """Writes the table into the card beside the weights."""
    card = shipped.FOLDER / CARD
    with atomic_write(card) as file:
        file.write(f'{card.read_text().partition(_TABLE)[0]}{_TABLE}\n{table()}'.encode())


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('backbone', help='name of configs/_base_/backbones')
    parser.add_argument('checkpoint', help='classifier.pth of classification.py, or a checkpoint of transfer.py')
    parser.add_argument('--result', metavar='TEXT', help="what it was measured at; default: a classifier's top-1")
    command = "the command that trained it; default: a classifier's own, without the folders of absolute paths"
    parser.add_argument('--command', metavar='TEXT', help=command)
    parser.add_argument('--commit', metavar='HASH', help='the commit that trained it; default: the one checked out')
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug, after='Nothing was written.'):
        pack(args)
        write_card()


if __name__ == '__main__':
    main()
