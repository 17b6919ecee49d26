"""Train `icconv train`'s network on folders from pretrained weights; write what its validation measures as JSON lines.

Each combination of folder, weights, epochs and seed is a run in a folder of its own, which keeps its last checkpoint.
The same command goes on where it was interrupted: a run with a line in results.jsonl is done, another one goes on after
its last whole epoch.

Examples:
  python tools/dev/pretrain/transfer.py data/stitched --weights work_dirs/pretrained/classifier.pth --epochs 2 \
      --out work_dirs/detectors
  python tools/dev/pretrain/transfer.py data/kangaroo data/bccd --weights none work_dirs/pretrained/classifier.pth \
      --epochs 16 64 --seeds 0 1 2 --out work_dirs/transfer
"""

import gc
import hashlib
import itertools
import json
import resource
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from icconv_mm.apis import config_for, train
from icconv_mm.app.commands import command_line
from icconv_mm.arguments import check_not_negative, check_positive
from icconv_mm.checkpoints.matching import state_dict_of
from icconv_mm.checkpoints.reading import read
from icconv_mm.files import alone_in, atomic_write, require_file
from icconv_mm.run_folder import last_checkpoint

RANDOM = 'none'  # instead of a file with weights


def trained(args: Namespace, data: str, weights: str, epochs: int, seed: int, folder: Path) -> dict[str, Any]:
    """Trains in a folder, at the learning rate of random weights; returns the last loss and the metrics."""
    labels = dict(classes=args.classes, ignore_index=args.ignore_index)
    cfg = config_for(data, args.task, args.backbone, args.size, epochs, work_dir=folder, pretrained='none', **labels)
    cfg.randomness = dict(seed=seed)
    cfg.train_cfg.val_interval = epochs
    cfg.default_hooks.checkpoint.save_best = None
    goes_on, mismatch = last_checkpoint(folder) is not None, ()
    if weights != RANDOM:
        keys = state_dict_of(read(weights))
        if any(key.startswith('head.fc.') for key in keys):
            cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=weights, prefix='backbone.')
        elif not goes_on:
            cfg.load_from, mismatch = weights, args.allow_mismatch
    logs = train(cfg, resume=goes_on, allow_mismatch=mismatch, skip_bad_images=True).message_hub.log_scalars
    metrics = {key.removeprefix('val/'): logs[key].current() for key in logs if key.startswith('val/')}
    return dict(batch=cfg.batch_size, is_whole=not goes_on, loss=float(logs['train/loss'].current()), **metrics)


def core_seconds() -> float:
    """Returns the seconds that cores have computed for this process and for those of its children that have ended."""
    gc.collect()  # ends the processes that load images
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run_all(args: Namespace) -> None:
    """Does the runs that have no line yet, those of the first seed first.

    Raises:
        MissingFileError: A file of weights does not exist.
        UserError: As of :func:`icconv_mm.apis.config_for` and :func:`icconv_mm.apis.train`.
    """
    digests = {RANDOM: RANDOM}
    for path in args.weights:
        if path != RANDOM:
            require_file(path, 'weights')
            digests[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
    results = args.out / 'results.jsonl'
    lines = results.read_text().splitlines() if results.is_file() else []
    done = {json.loads(line)['run'] for line in lines}
    for seed, epochs, data, weights in itertools.product(args.seeds, args.epochs, args.data, args.weights):
        name = f'{Path(data).name}_{args.task}_{args.backbone}_{args.size}_{digests[weights]}_{epochs}_{seed}'
        if name in done:
            continue
        began = core_seconds()
        row = trained(args, data, weights, epochs, seed, args.out / name)
        row = dict(run=name, weights=weights, core_seconds=round(core_seconds() - began, 1), **row)
        lines.append(json.dumps(row))
        print(lines[-1], flush=True)
        with atomic_write(results) as file:
            file.write('\n'.join([*lines, '']).encode())


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('data', nargs='+', metavar='FOLDER', help='images and annotations, as of icconv train')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER', help='for the runs and results.jsonl')
    weights = 'classifier.pth of classification.py, a checkpoint of such a network, or none; default: none'
    parser.add_argument('--weights', nargs='+', default=[RANDOM], metavar='FILE', help=weights)
    parser.add_argument('--task', default='detection', help='as of icconv train; default: %(default)s')
    parser.add_argument('--backbone', default='small', metavar='NAME', help='default: %(default)s')
    parser.add_argument('--size', type=int, default=192, help='pixels of the longer side; default: %(default)s')
    parser.add_argument('--epochs', type=int, nargs='+', default=[16], metavar='N', help='default: 16')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], metavar='N', help='default: 0')
    parser.add_argument('--threads', type=int, default=1, metavar='N', help='default: %(default)s')
    differing = 'modules that may differ from those of a checkpoint of the network; default: %(default)s'
    heads = ['rpn_head', 'roi_head.bbox_head']
    parser.add_argument('--allow-mismatch', nargs='+', default=heads, metavar='MODULE', help=differing)
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='as of icconv train')
    parser.add_argument('--ignore-index', nargs='+', type=int, default=[], metavar='N', help='as of icconv train')
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug, interrupted='the same command goes on from what is saved'):
        check_positive(size=args.size, threads=args.threads, epochs=min(args.epochs))
        check_not_negative(seeds=min(args.seeds))
        torch.set_num_threads(args.threads)
        with alone_in(args.out, 'another transfer is running'):
            run_all(args)


if __name__ == '__main__':
    main()
