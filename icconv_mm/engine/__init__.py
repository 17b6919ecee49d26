"""Hooks and optimiser wrappers, as in mmdet."""

from icconv_mm.engine.checkpoint_hook import AtomicCheckpointHook
from icconv_mm.engine.checkpoint_match import CheckpointMatchHook
from icconv_mm.engine.cpu_amp import CPUAmpOptimWrapper
from icconv_mm.engine.deploy_hook import DeployHook
from icconv_mm.engine.random_state import ResumableRandomnessHook

__all__ = ['AtomicCheckpointHook', 'CPUAmpOptimWrapper', 'CheckpointMatchHook', 'DeployHook', 'ResumableRandomnessHook']
