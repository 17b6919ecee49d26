"""Training hooks."""

from .checkpoint_match import CheckpointMatchHook
from .random_state import ResumableRandomnessHook

__all__ = ['CheckpointMatchHook', 'ResumableRandomnessHook']
