"""What the folders beside it share: checks of tensors, names that torch keeps private, scratch memory."""
