"""Hooks and optimiser wrappers, as in mmdet."""

from icconv_mm import versions

versions.check()  # before the imports below, which fail on a missing library with a less helpful error

from icconv_mm.engine.checkpoint_hook import AtomicCheckpointHook  # noqa: E402
from icconv_mm.engine.checkpoint_match import CheckpointMatchHook  # noqa: E402
from icconv_mm.engine.cpu_amp import CPUAmpOptimWrapper  # noqa: E402
from icconv_mm.engine.deploy_hook import DeployHook  # noqa: E402
from icconv_mm.engine.random_state import ResumableRandomnessHook  # noqa: E402

__all__ = ['AtomicCheckpointHook', 'CPUAmpOptimWrapper', 'CheckpointMatchHook', 'DeployHook', 'ResumableRandomnessHook']
