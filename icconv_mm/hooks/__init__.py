"""Hooks of training and testing."""

from .checkpoint_match import CheckpointMatchHook
from .inference_form import InferenceFormHook
from .random_state import ResumableRandomnessHook

__all__ = ['CheckpointMatchHook', 'InferenceFormHook', 'ResumableRandomnessHook']
