"""Tests run on the inference form of a model."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from icconv_mm._deprecated import warn_renamed
from icconv_mm.deployment import deploy
from icconv_mm.registry import HOOKS


@HOOKS.register_module()
class DeployHook(Hook):
    """Puts the inference form (``icconv_mm.deploy``) of the model into the runner before a test.

    By then the checkpoint is loaded and, where weights are averaged, the averages are in their place.
    """

    priority = 'LOWEST'

    def before_test_epoch(self, runner: Runner) -> None:
        runner.model = deploy(runner.model)


@HOOKS.register_module(name='InferenceFormHook')
def _old_name() -> DeployHook:
    warn_renamed('icconv_mm.InferenceFormHook', 'icconv_mm.DeployHook')
    return DeployHook()
