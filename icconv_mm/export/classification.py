"""Classifiers of mmpretrain."""

from typing import Any

from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from icconv_mm.errors import InputError


class ClassifierOutputs(nn.Module):
    """``scores`` [N, C], which sum to 1.

    Args:
        classifier: An ``ImageClassifier`` whose head gives one label.
        where: Its name in an error.

    Raises:
        InputError: It is another network.
    """

    kind = 'classification'
    names = ('scores',)

    def __init__(self, classifier: nn.Module, where: str = 'model'):
        super().__init__()
        head = getattr(classifier, 'head', None)
        is_known = isinstance(classifier, ImageClassifier) and isinstance(head, ClsHead)
        if not is_known or type(head)._get_predictions is not ClsHead._get_predictions:
            raise InputError(
                f'{where}.head: {type(head).__name__} cannot be exported; heads of one label (ClsHead) can'
            )
        self.classifier = classifier

    def details(self, meta: dict) -> dict[str, Any]:
        """What the runtime needs to know."""
        return {}

    def forward(self, image: Tensor, size: Tensor | None) -> tuple[Tensor]:
        """``[N, 3, H, W]`` normalised."""
        return (self.classifier.head(self.classifier.extract_feat(image)).softmax(1),)
