"""Hooks and optimiser wrappers, as in mmdet."""

from icconv_mm import versions

versions.check()  # before the imports below, which fail on a missing library with a less helpful error

from icconv_mm.engine.atomic_checkpoint_hook import AtomicCheckpointHook  # noqa: E402
from icconv_mm.engine.checkpoint_match_hook import CheckpointMatchHook  # noqa: E402
from icconv_mm.engine.cpu_amp_optim_wrapper import CPUAmpOptimWrapper  # noqa: E402
from icconv_mm.engine.deploy_hook import DeployHook  # noqa: E402
from icconv_mm.engine.resumable_randomness_hook import ResumableRandomnessHook  # noqa: E402

__all__ = ['AtomicCheckpointHook', 'CPUAmpOptimWrapper', 'CheckpointMatchHook', 'DeployHook', 'ResumableRandomnessHook']
