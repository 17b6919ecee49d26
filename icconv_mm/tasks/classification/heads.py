"""Heads and classifiers of mmpretrain's kind."""

from typing import Any

from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn

from icconv_mm.errors import InputError
from icconv_mm.registry import MODELS


@MODELS.register_module()
class DropoutLinearClsHead(LinearClsHead):
    """A linear classifier behind a dropout, with the keys of mmpretrain's ``LinearClsHead`` (``fc.*``).

    Args:
        dropout_ratio: The probability that a feature is zero in training (0.2 in PyConv's augmented recipe).
        **kwargs: Arguments of ``LinearClsHead``: num_classes, in_channels, loss, topk ...

    Raises:
        InputError: If the ratio is not from 0 to 1.
    """

    def __init__(self, dropout_ratio: float = 0.2, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= dropout_ratio <= 1:
            raise InputError(f'dropout_ratio must be from 0 to 1, got {dropout_ratio}')
        self.dropout = nn.Dropout(dropout_ratio)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Returns the features of the last stage ``[N, in_channels]``; in training, some of them are zero."""
        return self.dropout(super().pre_logits(feats))


@MODELS.register_module()
class MixedClassifier(ImageClassifier):
    """mmpretrain's classifier for training on mixed images (CutMix), with the number of classes taken from its head.

    The data preprocessor, which converts labels to shares of each class, gets that number, whatever its config gives.

    Args:
        **kwargs: Arguments of ``ImageClassifier``.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.data_preprocessor.num_classes = self.head.num_classes
