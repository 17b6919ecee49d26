"""Registered hooks, mixed precision and optimizers."""
