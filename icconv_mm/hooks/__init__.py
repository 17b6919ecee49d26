"""Hooks of mmengine's runner; the docstring of each module says what its hooks do."""
