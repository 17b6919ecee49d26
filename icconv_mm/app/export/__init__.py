"""Export of trained networks: files that need neither torch nor OpenMMLab."""
