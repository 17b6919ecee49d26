"""Hooks that the command adds to a training."""
