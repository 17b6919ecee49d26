"""What the folders beside it share: checks of tensors, scratch memory."""
