"""The references: each operator in plain PyTorch, as the compiled kernels are tested against it.

Of the attentions it has the definition, which traces hold and tests compare with; what runs them, in blocks and in
plain PyTorch too, stands beside the functions.
"""
