"""A checkpoint of another architecture is refused before anything of it is loaded."""

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper

from icconv_mm.checkpoints.matching import check_fits
from icconv_mm.registry import HOOKS


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Compare a checkpoint with the model before mmengine, which loads whatever fits and logs the rest.

    Args:
        allow: Names of modules where differences are accepted, such as ``'roi_head.bbox_head'`` when the number of
            classes changes.
        name: What to call the checkpoint in the error.

    Raises:
        ArchitectureMismatchError: Keys or shapes differ elsewhere; the message lists them.
    """

    priority = 'HIGHEST'  # before hooks that change the checkpoint, such as the one for averaged weights

    def __init__(self, allow: Sequence[str] = (), name: str = 'the checkpoint') -> None:
        self.allow = tuple(allow)
        self.name = name

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        check_fits(model, checkpoint, self.name, self.allow)
