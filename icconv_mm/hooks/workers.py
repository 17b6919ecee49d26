"""Processes that load images: as many as the shared memory holds, and a hook that ends them when a run ends."""

import os
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from icconv_mm.config_tree import walk_dicts

_SHARED = '/dev/shm'  # where processes hand over their images; docker gives it 64 MB
_SIZES = ('scale', 'size', 'crop_size', 'img_scale', 'input_size', 'img_shape')  # in transforms, in pixels
_USUAL = (1333, 800)
_PER_PIXEL = 2 * 3  # bytes: three channels, and as much for masks, maps and rotated corners


def fit_workers(cfg: MutableMapping[str, Any], names: Iterable[str]) -> None:
    """Lowers ``num_workers`` of the data loaders whose images would not fit into the machine's shared memory.

    A process that cannot hand over a batch there is killed, or the run waits for it for ever.

    Args:
        cfg: The config; changed in place.
        names: The loaders that run, such as ``'train_dataloader'``.
    """
    try:
        found = os.statvfs(_SHARED)
    except (OSError, AttributeError):  # a system without it
        return
    free = found.f_bavail * found.f_frsize / int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    loaders = {name: cfg[name] for name in names if isinstance(cfg.get(name), Mapping)}
    needed = sum(map(_bytes_of_batches, loaders.values()))
    if needed <= free:
        return
    for name, loader in loaders.items():
        if not (former := loader.get('num_workers') or 0):
            continue
        loader['num_workers'] = count = int(former * free / needed)
        if not count:
            loader['persistent_workers'] = False
            loader.pop('prefetch_factor', None)
        if is_main_process():
            print(
                f'{name}.num_workers = {count} instead of {former}: {_SHARED} has {free / 1e6:.3g} MB left, batches '
                f'may take {needed / 1e6:.3g} MB (docker run --shm-size=8g gives more)',
                file=sys.stderr,
            )


def _bytes_of_batches(loader: Mapping[str, Any]) -> float:
    """Returns the bytes of the batches that wait for their use, by the largest image in the loader's transforms."""
    areas = [_USUAL[0] * _USUAL[1]]
    values = [node[key] for node in walk_dicts(loader.get('dataset')) for key in _SIZES if key in node]
    pairs = [(value, value) if isinstance(value, (int, float)) else value for value in values]
    areas = [
        pair[0] * pair[1]
        for pair in pairs
        if isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(side) in (int, float) for side in pair)
    ] or areas
    workers, ahead = loader.get('num_workers') or 0, loader.get('prefetch_factor') or 2
    return workers * ahead * (loader.get('batch_size') or 1) * max(areas) * _PER_PIXEL


class WorkersHook(Hook):
    """Ends the processes that load images; a loader that is used again starts others.

    Left to the garbage collector, each of them takes five seconds: torch tells it to end through a queue that is closed
    by then, and waits.
    """

    def after_run(self, runner: Runner) -> None:
        end_workers(runner)


def end_workers(runner: Runner) -> None:
    """Ends the processes that load the images of a runner."""
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        loader = getattr(loop, 'dataloader', None)
        if getattr(loader, '_iterator', None) is not None:  # of persistent workers
            loader._iterator._shutdown_workers()
            loader._iterator = None
        holder = getattr(loop, 'dataloader_iterator', None)  # of a training that counts iterations
        while hasattr(inner := getattr(holder, '_iterator', None), '_iterator'):
            holder = inner
        if hasattr(inner, '_shutdown_workers'):
            inner._shutdown_workers()
            holder._iterator = iter(())  # at whose end mmengine starts anew
