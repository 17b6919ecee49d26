"""Exportable outputs of segmentors of mmseg, classes of pixels, and of classifiers of mmpretrain, classes of images."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.errors import InputError


class _Enlarged(nn.Module):
    """mmseg's ``Upsample`` by a whole factor; its own float arithmetic would make sizes constant."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.factor, self.mode, self.align_corners = int(module.scale_factor), module.mode, module.align_corners

    def forward(self, x: Tensor) -> Tensor:
        size = [side * self.factor for side in x.shape[-2:]]
        return F.interpolate(x, size, mode=self.mode, align_corners=self.align_corners)


class SegmentorOutputs(nn.Module):
    """Computes ``logits`` [N, C, H, W] of a segmentor that predicts whole images.

    Args:
        segmentor: An ``EncoderDecoder``.
        where: The segmentor's name in an error.

    Raises:
        InputError: The segmentor is of another class, or tests by sliding windows.
    """

    kind = 'semantic'
    names = ('logits',)

    def __init__(self, segmentor: nn.Module, where: str = 'model'):
        super().__init__()
        from mmseg.models.segmentors import EncoderDecoder
        from mmseg.models.utils import Upsample

        if type(segmentor) is not EncoderDecoder or type(segmentor).encode_decode is not EncoderDecoder.encode_decode:
            raise InputError(f'{where}: {type(segmentor).__name__} cannot be exported; of mmseg, EncoderDecoder can')
        if (mode := segmentor.test_cfg.get('mode', 'whole')) != 'whole':
            raise InputError(f"{where}.test_cfg.mode: {mode!r} cannot be exported, only 'whole'")
        self.segmentor = segmentor
        for parent in list(segmentor.modules()):
            for name, child in parent.named_children():
                if type(child) is Upsample and not child.size and child.scale_factor % 1 == 0:
                    setattr(parent, name, _Enlarged(child))

    def details(self, meta: dict) -> dict[str, Any]:
        """Returns the settings for the runtime."""
        head = self.segmentor.decode_head
        return {'align_corners': bool(head.align_corners), 'threshold': getattr(head, 'threshold', None)}

    def forward(self, image: Tensor, size: Tensor | None) -> tuple[Tensor]:
        """Takes normalised images ``[N, 3, H, W]``."""
        logits = self.segmentor.decode_head(self.segmentor.extract_feat(image))
        align_corners = self.segmentor.align_corners
        return (F.interpolate(logits, image.shape[-2:], mode='bilinear', align_corners=align_corners),)


class ClassifierOutputs(nn.Module):
    """Computes ``scores`` [N, C], which sum to 1.

    Args:
        classifier: An ``ImageClassifier`` whose head gives one label.
        where: The classifier's name in an error.

    Raises:
        InputError: The network is no such classifier.
    """

    kind = 'classification'
    names = ('scores',)

    def __init__(self, classifier: nn.Module, where: str = 'model'):
        super().__init__()
        from mmpretrain.models.classifiers import ImageClassifier
        from mmpretrain.models.heads import ClsHead

        head = getattr(classifier, 'head', None)
        is_known = isinstance(classifier, ImageClassifier) and isinstance(head, ClsHead)
        if not is_known or type(head)._get_predictions is not ClsHead._get_predictions:
            raise InputError(
                f'{where}.head: {type(head).__name__} cannot be exported; heads of one label (ClsHead) can'
            )
        self.classifier = classifier

    def details(self, meta: dict) -> dict[str, Any]:
        """Returns the settings for the runtime."""
        return {}

    def forward(self, image: Tensor, size: Tensor | None) -> tuple[Tensor]:
        """Takes normalised images ``[N, 3, H, W]``."""
        return (self.classifier.head(self.classifier.extract_feat(image)).softmax(1),)
