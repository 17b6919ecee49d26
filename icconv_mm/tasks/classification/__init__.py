"""Image classification, and pretraining of backbones, with mmpretrain 1."""

from icconv_mm.tasks.classification.heads import DropoutLinearClsHead, MixedClassifier

__all__ = ['DropoutLinearClsHead', 'MixedClassifier']
