"""The tools' view of mmpretrain."""

from icconv_mm.tasks.base import TaskAdapter


class Adapter(TaskAdapter):
    """Classifiers of mmpretrain."""

    library = 'mmpretrain'

    def draw_predictions(self, visualizer, image, sample, score_thr, out_file):
        visualizer.visualize_cls(image, sample, draw_gt=False, out_file=out_file)

    def draw_annotations(self, visualizer, image, sample, out_file, show, wait_time):
        visualizer.visualize_cls(image, sample, draw_pred=False, out_file=out_file, show=show, wait_time=wait_time)

    def coco_records(self, sample, image_id, category_ids, score_thr):
        """One entry per class that scores enough, best first: a category, a score and no box."""
        scores = sample.pred_score.cpu()
        labels = [label for label in scores.argsort(descending=True).tolist() if scores[label] >= score_thr]
        return [
            dict(image_id=image_id, category_id=category_ids[label], score=round(float(scores[label]), 5))
            for label in labels
        ]
