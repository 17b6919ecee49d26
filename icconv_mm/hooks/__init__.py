"""Hooks: what a training does beside. Each module says what its hooks are for."""
