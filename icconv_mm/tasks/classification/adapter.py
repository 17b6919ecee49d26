"""The tools' view of mmpretrain."""

from collections.abc import Mapping, Sequence
from typing import Any

from icconv_mm.data.checks import check_order
from icconv_mm.tasks.task import TaskAdapter
from icconv_mm_runtime.drawing import Content, content_of


class Adapter(TaskAdapter):
    """Classifiers of mmpretrain."""

    library = 'mmpretrain'
    kind = 'classification'

    def check_dataset(self, dataset: Any, where: str, loaders: Sequence[Any] = ()) -> None:
        """Labels by name where the folders have them: mmpretrain numbers folders by the alphabet."""
        classes = dataset.metainfo.get('classes') or ()
        folders = getattr(dataset, 'folder_to_idx', None) or {}
        labels = {name: label for name, label in folders.items() if name in classes}
        check_order(classes, labels, where, 'the order of folders')

    def annotations(self, sample: Any, dataset_meta: Mapping[str, Any]) -> Content:
        labels = sample.gt_label.tolist() if 'gt_label' in sample else []
        return content_of(self.described(dataset_meta), {'labels': labels})

    def content(self, sample: Any, dataset_meta: Mapping[str, Any], score_thr: float) -> Content:
        score, label = sample.pred_score.cpu().max(0)
        classes = self.class_names(dataset_meta)
        return Content(title=f'{classes[int(label)] if classes else int(label)} {float(score):.2f}')

    def coco_records(self, sample: Any, image_id: int, category_ids: Sequence[int], score_thr: float) -> list[dict]:
        """One entry per class that scores enough, best first: a category, a score and no box."""
        scores = sample.pred_score.cpu()
        labels = [label for label in scores.argsort(descending=True).tolist() if scores[label] >= score_thr]
        return [
            dict(image_id=image_id, category_id=category_ids[label], score=round(float(scores[label]), 5))
            for label in labels
        ]
