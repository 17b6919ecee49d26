"""Image classification, and pretraining of backbones, with mmpretrain 1."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn

from icconv_mm.annotations.checks import check_order
from icconv_mm.errors import InputError
from icconv_mm.registry import MODELS
from icconv_mm.tasks.adapter import TaskAdapter
from icconv_mm.tasks.classification.evaluation import ObservedLabels
from icconv_mm_runtime.drawing import Drawing, drawing_of
from icconv_mm_runtime.results import Predictions


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


class Adapter(TaskAdapter):
    """Adapter for classifiers of mmpretrain."""

    library = 'mmpretrain'
    kind = 'classification'
    observers = (ObservedLabels,)

    def check_dataset(self, dataset: Any, where: str, loaders: Sequence[Any] = ()) -> None:
        """Checks labels by name if classes are folders: mmpretrain numbers folders alphabetically."""
        classes = dataset.metainfo.get('classes') or ()
        folders = getattr(dataset, 'folder_to_idx', None) or {}
        labels = {name: label for name, label in folders.items() if name in classes}
        check_order(classes, labels, where, 'the order of folders')

    def annotations(self, sample: Any, dataset_meta: Mapping[str, Any]) -> Drawing:
        labels = sample.gt_label.tolist() if 'gt_label' in sample else []
        return drawing_of(self.described(dataset_meta), {'labels': labels})

    def predictions(self, sample: Any) -> Predictions:
        return {'scores': sample.pred_score.cpu().numpy()}

    def uncertainty(self, sample: Any) -> float:
        """Returns 1 minus the margin between the two best scores."""
        scores = sample.pred_score.topk(min(2, sample.pred_score.numel())).values
        return float(1 - (scores[0] - scores[-1])) if len(scores) > 1 else 0.0


__all__ = ['DropoutLinearClsHead', 'MixedClassifier']
