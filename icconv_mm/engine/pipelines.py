"""Hook that changes the pipeline of the training images for the last epochs."""

from collections.abc import Sequence

from mmengine.dataset import Compose
from mmengine.hooks import Hook
from mmengine.runner import Runner

from icconv_mm.errors import InputError
from icconv_mm.registry import HOOKS


@HOOKS.register_module()
class LastEpochsHook(Hook):
    """Loads the training images of the last epochs through another pipeline.

    Unlike mmdet's ``PipelineSwitchHook``, it counts from the end, so that it fits a training of any length, and of one
    that changes on the way (``--time``).

    Args:
        epochs: How many; a training of no more has the other pipeline from its start.
        pipeline: The transforms.

    Raises:
        InputError: The number is negative.
    """

    def __init__(self, epochs: int, pipeline: Sequence[dict]) -> None:
        if epochs < 0:
            raise InputError(f'LastEpochsHook: epochs must be 0 or more, got {epochs}')
        self.epochs, self.pipeline = epochs, pipeline
        self._done = False

    def before_train_epoch(self, runner: Runner) -> None:
        if not self._done and runner.epoch >= runner.max_epochs - self.epochs:
            loader = runner.train_dataloader
            loader.dataset.pipeline = Compose(self.pipeline)
            if loader.persistent_workers:  # which have a copy of the dataset: the loader starts others
                loader._iterator = None
            self._done = True
