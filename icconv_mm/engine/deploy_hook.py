"""Deploys a model before it is tested."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from icconv_mm.deployment import deploy
from icconv_mm.registry import HOOKS


@HOOKS.register_module()
class DeployHook(Hook):
    """Deploys the model (``icconv_mm.deploy``) in the runner before a test.

    By then the checkpoint is loaded, and averaged weights, if any, have replaced the model's.
    """

    priority = 'LOWEST'

    def before_test_epoch(self, runner: Runner) -> None:
        runner.model = deploy(runner.model)
