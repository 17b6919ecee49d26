"""Predictions and annotations that a library's metric compares, and what the report has of it."""

import numpy as np
import torch
from mmengine.evaluator import Evaluator

from icconv_mm.app.evaluation.evaluate import evaluation_of
from icconv_mm.app.evaluation.observers import observer_of

BALLS = {'classes': ['ball', 'box'], 'palette': None}


def measured(adapter, metric, meta, samples, given=None):
    """Runs a metric on samples; returns what it returned, and the report's evaluation."""
    name, observed = observer_of(adapter, metric)
    evaluator = Evaluator([metric])
    evaluator.dataset_meta = meta
    if observed is not None:
        observed.begin()
    for sample in samples:
        evaluator.process([sample])
    numbers = evaluator.evaluate(len(samples))
    readings = [] if observed is None or observed.latest is None else [(observed, observed.latest)]
    task = adapter.parts(meta)[name][0].described(meta.get(name, meta) if name else meta)
    start = f'{name}/' if name else ''
    metrics = {key.removeprefix(start): value for key, value in numbers.items()}
    return numbers, evaluation_of(task, readings, metrics, len(samples), given)


def objects(predictions, annotations, number=0, path='a.jpg', size=(100, 100), masks=None):
    """Returns a sample of mmdet's: predicted boxes, labels and scores; annotated boxes, labels and whether ignored."""
    (boxes, labels, scores), (annotated, classes, *ignored) = predictions, annotations
    ignored = np.array(ignored[0] if ignored else [0] * len(classes), bool)
    annotated, classes = np.array(annotated, float).reshape(-1, 4), np.array(classes, int)
    predicted = {
        'bboxes': torch.tensor(np.array(boxes, float).reshape(-1, 4)),
        'labels': torch.tensor(np.array(labels, int)),
        'scores': torch.tensor(np.array(scores, float)),
    }
    entries = [
        {'bbox': box.tolist(), 'bbox_label': int(label), 'ignore_flag': int(is_ignored)}
        for box, label, is_ignored in zip(annotated, classes, ignored)
    ]
    if masks is not None:
        predicted['masks'] = masks[0]
        for entry, mask in zip(entries, masks[1]):
            entry['mask'] = mask
    sides = [
        {'bboxes': torch.tensor(annotated[chosen]), 'labels': torch.tensor(classes[chosen])}
        for chosen in (~ignored, ignored)
    ]
    return {
        'img_id': number, 'img_path': path, 'ori_shape': size, 'pred_instances': predicted, 'instances': entries,
        'gt_instances': sides[0], 'ignored_instances': sides[1],
    }  # fmt: skip


def boxes_of(samples, given=None, meta=BALLS, **options):
    """Returns what mmdet's ``CocoMetric`` returns for samples, and the report's evaluation."""
    from mmdet.evaluation import CocoMetric

    from icconv_mm.app.adapters.detection import Adapter

    return measured(Adapter(), CocoMetric(**options), meta, samples, given)


def random_objects(count=12, crowds=0.15):
    """Returns samples of random boxes of three sizes, with crowds."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(count):
        low = rng.uniform(0, 150, (6, 2))
        boxes = np.hstack([low, low + rng.choice([12, 50, 120], (6, 1)) * rng.uniform(0.8, 1.2, (6, 2))])
        labels, ignored = rng.integers(0, 2, 6), rng.random(6) < crowds
        near = boxes + rng.normal(0, 4, boxes.shape)
        predicted = near, labels, rng.random(6)
        samples.append(objects(predicted, (boxes, labels, ignored), number, f'{number}.jpg', (300, 300)))
    return samples


def seg_map(predicted, annotated, path='a.png'):
    """Returns a sample of mmseg's: the predicted and the annotated class of each pixel, [H, W]."""
    maps = [torch.as_tensor(np.asarray(labels), dtype=torch.int64)[None] for labels in (predicted, annotated)]
    return {'img_path': path, 'pred_sem_seg': {'data': maps[0]}, 'gt_sem_seg': {'data': maps[1]}}


def people(keypoints, scores, annotations, number=1, path='a.jpg', size=(100, 100), boxes=None):
    """Returns a sample of mmpose's: keypoints [n, K, 2] and scores; annotations as entries of a COCO file."""
    keypoints = np.asarray(keypoints, float)
    predicted = {
        'keypoints': keypoints,
        'keypoint_scores': np.full(keypoints.shape[:2], 0.5),
        'bbox_scores': np.asarray(scores),
    }
    entries = [
        {'id': 100 * number + i, 'image_id': number, 'category_id': 1, 'iscrowd': 0, **annotation}
        for i, annotation in enumerate(annotations, 1)
    ]
    return {
        'id': [entry['id'] for entry in entries] or [0], 'img_id': number, 'img_path': path, 'ori_shape': size,
        'category_id': 1, 'pred_instances': predicted, 'gt_instances': {}, 'raw_ann_info': entries,
    }  # fmt: skip
