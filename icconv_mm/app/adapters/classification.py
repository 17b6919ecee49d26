"""What the application knows of mmpretrain."""

from collections.abc import Mapping, Sequence
from typing import Any

from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.datasets.checks import check_order
from icconv_mm_runtime.drawing import Drawing, drawing_of
from icconv_mm_runtime.results import Arrays


class Adapter(TaskAdapter):
    """Adapter for classifiers of mmpretrain."""

    library = 'mmpretrain'
    kind = 'classification'

    def check_dataset(self, dataset: Any, where: str, loaders: Sequence[Any] = ()) -> None:
        """Checks labels by name if classes are folders: mmpretrain numbers folders alphabetically."""
        classes = dataset.metainfo.get('classes') or ()
        folders = getattr(dataset, 'folder_to_idx', None) or {}
        labels = {name: label for name, label in folders.items() if name in classes}
        check_order(classes, labels, where, 'the order of folders')

    def annotations(self, sample: Any, dataset_meta: Mapping[str, Any]) -> Drawing:
        labels = sample.gt_label.tolist() if 'gt_label' in sample else []
        return drawing_of(self.described(dataset_meta), {'labels': labels})

    def predictions(self, sample: Any) -> Arrays:
        return {'scores': sample.pred_score.cpu().numpy()}

    def uncertainty(self, sample: Any) -> float:
        """Returns 1 minus the margin between the two best scores."""
        scores = sample.pred_score.topk(min(2, sample.pred_score.numel())).values
        return float(1 - (scores[0] - scores[-1])) if len(scores) > 1 else 0.0
