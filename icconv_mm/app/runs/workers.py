"""Processes that load images: as many as the shared memory holds, and a hook that ends them when a run ends."""

import os
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from icconv_mm.config_tree import Node

_SHARED = '/dev/shm'  # where processes hand over their images; docker gives it 64 MB
_SIZES = ('scale', 'size', 'crop_size', 'img_scale', 'input_size', 'img_shape')  # in transforms, in pixels
_USUAL = 1333 * 800
_IN_USE = 2  # batches of a loader that the training has, beside those that wait
_PER_PIXEL = 2 * 3  # bytes: three channels, and as much for masks, maps and rotated corners


def fit_workers(nodes: Sequence[Node], names: Collection[str]) -> None:
    """Lowers ``num_workers`` of the data loaders whose images would not fit into the machine's shared memory.

    A process that cannot hand over a batch there is killed, or the run waits for it for ever.

    Args:
        nodes: All dicts of the config; changed in place.
        names: The loaders that run, such as ``'train_dataloader'``.
    """
    try:
        statistics = os.statvfs(_SHARED)
    except (OSError, AttributeError):  # a system without it
        return
    free = statistics.f_bavail * statistics.f_frsize / int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    loaders = {node.location: node.cfg for node in nodes if node.location in names}
    pixels = {name: _pixels_of([node.cfg for node in nodes if node.part == name]) for name in loaders}
    counts = {name: loader.get('num_workers') or 0 for name, loader in loaders.items()}

    def needed(name: str) -> float:
        loader, count = loaders[name], counts[name]
        batches = count * (loader.get('prefetch_factor') or 2) + _IN_USE if count else 0
        return batches * (loader.get('batch_size') or 1) * pixels[name] * _PER_PIXEL

    while sum(map(needed, counts)) > free and any(counts.values()):
        counts[max(counts, key=needed)] -= 1
    for name, count in counts.items():
        if count == (former := loaders[name].get('num_workers') or 0):
            continue
        loaders[name]['num_workers'] = count
        if not count:
            loaders[name]['persistent_workers'] = False
            loaders[name].pop('prefetch_factor', None)
        if is_main_process():
            print(
                f'{name}.num_workers = {count} instead of {former}: {_SHARED} has {free / 1e6:.3g} MB left, too few '
                'for the batches of more processes (docker run --shm-size=8g gives more)',
                file=sys.stderr,
            )


def _pixels_of(settings: Sequence[dict]) -> float:
    """Returns the pixels of the largest image in a loader's transforms, among all its settings, or of a usual one."""
    values = [setting[key] for setting in settings for key in _SIZES if key in setting]
    pairs = [(value, value) if isinstance(value, (int, float)) else value for value in values]
    areas = [
        pair[0] * pair[1]
        for pair in pairs
        if isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(side) in (int, float) for side in pair)
    ]
    return max(areas, default=_USUAL)


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


class EndingLoader(DataLoader):
    """A loader whose epochs, also one that runs, end after ``most`` batches; mmengine's loop has no such limit."""

    most = sys.maxsize

    @classmethod
    def become(cls, loader: Any) -> None:
        """Makes one of torch's loaders, of no class of its own, one of these."""
        if type(loader) is DataLoader:
            loader.__class__ = cls

    def __len__(self) -> int:
        return min(super().__len__(), self.most)

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(super().__iter__(), 1):
            yield batch
            if number >= self.most:
                return
