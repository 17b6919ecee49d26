"""Image classification, and pretraining of backbones, with mmpretrain 1."""
