"""Hook that ends the processes that load images, when a run ends."""

from mmengine.hooks import Hook
from mmengine.runner import Runner


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
