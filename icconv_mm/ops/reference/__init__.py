"""The references: each operator in plain PyTorch, as the compiled kernels are tested against it."""
