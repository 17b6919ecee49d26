"""The report shows what mmdet's metrics have measured, whatever their options."""

import json

import numpy as np
import pytest

pytest.importorskip('mmdet')

from measured import BALLS, boxes_of, measured, objects, random_objects
from mmdet.evaluation import CocoMetric, DumpDetResults, VOCMetric
from mmengine.evaluator import BaseMetric
from pycocotools.mask import area

from icconv_mm.app.adapters.detection import Adapter
from icconv_mm.app.evaluation.detection import compare_objects
from icconv_mm.app.evaluation.evaluate import evaluation_of, metric_name
from icconv_mm.app.evaluation.observers import observer_of
from icconv_mm.app.evaluation.results import Record


def agrees(numbers, evaluation):
    """Returns whether the report has every number that the metric returned, and no other."""
    shown = {metric_name(key): value if value >= 0 else None for key, value in numbers.items()}
    return evaluation.overall == pytest.approx(shown) and not evaluation.others


@pytest.mark.parametrize(
    'options',
    [
        {}, {'classwise': True}, {'iou_thrs': [0.75]}, {'iou_thrs': [0.3, 0.5, 0.75]}, {'proposal_nums': (1, 10, 100)},
        {'proposal_nums': (1, 2, 3)}, {'metric_items': ['mAP_50']}, {'prefix': 'mine'}, {'use_mp_eval': True},
    ],
    ids=str,
)  # fmt: skip
def test_boxes(options):
    numbers, evaluation = boxes_of(random_objects(), **options)
    assert numbers and agrees(numbers, evaluation) and not evaluation.left_out
    first, *rows = evaluation.tables[0].rows
    assert evaluation.iou == options.get('iou_thrs', [0.5])[0] and len(evaluation.worst) == 6
    assert evaluation.tables[0].columns[2:8] == ['AP', 'AP50', 'AP75', 'AP small', 'AP medium', 'AP large']
    for key, value in zip(('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'), first[2:8]):
        reported = next((number for name, number in numbers.items() if name.endswith(f'bbox_{key}')), None)
        assert (
            reported is None or (reported == -1 and value is None) or value == pytest.approx(reported, abs=6e-4)
        )  # mmdet rounds
    if options.get('classwise'):
        assert [row[2] for row in rows] == pytest.approx(
            [numbers[f'coco/{row[0]}_precision'] for row in rows], abs=6e-4
        )
    # thresholds are of the metric's first IoU, and of all predictions
    for row in rows:
        threshold, precision, recall, f1 = row[-4:]
        assert f1 == pytest.approx(2 * precision * recall / (precision + recall)) and 0 < threshold < 1
    assert first[1] == sum(row[1] for row in rows) == int(evaluation.confusion[:2].sum())


def test_thresholds_and_pairs_follow_the_first_iou():
    """A box that overlaps its object by 0.68 is right at 0.5 and wrong at 0.75."""
    sample = [objects(([[10, 10, 27, 30]], [0], [0.9]), ([[10, 10, 35, 30]], [0]))]
    loose, strict = (boxes_of(sample, [0.5, 0.5], iou_thrs=[level])[1] for level in (0.5, 0.75))
    assert loose.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]] and loose.thresholds[0] is not None
    assert strict.confusion.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]] and strict.thresholds[0] is None


@pytest.mark.parametrize('kind', ['box', 'mask'])
def test_masks_are_compared_by_their_own_evaluation(kind):
    import torch

    mask, truth = torch.zeros(1, 100, 100, dtype=torch.bool), [[10, 10, 30, 10, 30, 30, 10, 30]]
    mask[0, 10:30, 10:20] = True
    sample = [objects(([[10, 10, 30, 30]], [0], [0.9]), ([[10, 10, 30, 30]], [0]), masks=(mask, [truth]))]
    metric = ['bbox', 'segm'] if kind == 'box' else 'segm'
    numbers, evaluation = boxes_of(sample, metric=metric)
    assert evaluation.kind == 'instance' and agrees(numbers, evaluation) and numbers['coco/segm_mAP_75'] == 0
    assert [table.title for table in evaluation.tables] == (['box AP', 'mask AP'] if kind == 'box' else ['mask AP'])
    (worst,) = boxes_of(sample, [0.95, 0.3], metric=metric)[1].worst  # its object is missed
    assert worst.score == 0 and area(worst.truth['masks'][0]) == pytest.approx(400, rel=0.1)


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'metric': 'proposal'}, 'COCOeval was not run by class'),
        ({'metric': 'proposal_fast'}, 'COCOeval was not run by class'),
        ({'format_only': True, 'outfile_prefix': 'x'}, 'format_only compares nothing'),
    ],
    ids=str,
)  # fmt: skip
def test_what_no_table_agrees_with_is_left_out(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    numbers, evaluation = boxes_of(random_objects(crowds=0), **options)  # mmdet's recall wants as many in each image
    assert said in evaluation.left_out and 'CocoMetric' in evaluation.left_out and agrees(numbers, evaluation)
    assert not evaluation.tables and evaluation.confusion is None and not evaluation.thresholds and not evaluation.worst


def test_nothing_predicted():
    numbers, evaluation = boxes_of([objects(([], [], []), ([[10, 10, 30, 30]], [0]))])
    assert numbers == {} and 'no object was predicted' in evaluation.left_out


def test_annotations_are_those_of_the_metric(tmp_path):
    """An ``ann_file`` of its own: more images, other objects, ids with a gap, and another order of classes."""
    file = tmp_path / 'a.json'
    entries = [
        dict(id=5, image_id=7, category_id=3, bbox=[10, 10, 20, 20], area=400, iscrowd=0),
        dict(id=6, image_id=9, category_id=8, bbox=[10, 10, 20, 20], area=400, iscrowd=0),
    ]
    images = [dict(id=number, width=100, height=80, file_name=f'{number}.jpg') for number in (7, 9)]
    categories = [dict(id=3, name='box'), dict(id=8, name='ball')]
    file.write_text(json.dumps(dict(images=images, annotations=entries, categories=categories)))
    # mmdet numbers labels by the order of the file: 0 is the box
    sample = objects(([[10, 10, 30, 30]], [0], [0.9]), ([[50, 50, 60, 60]] * 3, [0, 1, 1]), 7, '/x/7.jpg')
    numbers, evaluation = boxes_of([sample], ann_file=str(file), classwise=True)
    assert numbers['coco/box_precision'] == 1 and numbers['coco/ball_precision'] == 0 and agrees(numbers, evaluation)
    assert evaluation.confusion.tolist() == [
        [0, 0, 1],
        [0, 1, 0],
        [0, 0, 0],
    ]  # one ball is missed in an image of the file
    assert [row[:2] for row in evaluation.tables[0].rows] == [['all', 2], ['box', 1], ['ball', 1]]
    assert [row[2] for row in evaluation.tables[0].rows] == pytest.approx([0.5, 1, 0])
    assert [(record.path, record.shape, record.score) for record in evaluation.worst] == [
        ('', (80, 100), 0),
        ('/x/7.jpg', (80, 100), 1),
    ]


@pytest.mark.parametrize(
    'options',
    [{}, {'eval_mode': 'area'}, {'iou_thrs': [0.5, 0.75]}, {'iou_thrs': 0.7}, {'iou_thrs': [0.75]}, {'prefix': 'mine'}],
    ids=str,
)  # fmt: skip
def test_pascal_voc(options):
    numbers, evaluation = measured(Adapter(), VOCMetric(**options), BALLS, random_objects())
    values = {key.rpartition('/')[2]: value for key, value in numbers.items()}
    assert evaluation.overall == {
        f'box {key.replace("mAP", "AP")}': pytest.approx(value) for key, value in values.items()
    }
    first, *rows = evaluation.tables[0].rows
    levels = [key for key in values if key != 'mAP']
    assert evaluation.tables[0].columns[2 : 2 + len(levels)] == levels and not evaluation.left_out
    assert first[2 : 2 + len(levels)] == pytest.approx([values[key] for key in levels], abs=6e-4)
    assert first[1] == sum(row[1] for row in rows) == int(evaluation.confusion[:2].sum()) and len(evaluation.worst) == 6
    # the threshold gives the recall that the curve of mmdet ends with, or less
    assert (
        all(row[-2] <= evaluation.curves[row[0]][0].max() + 1e-6 for row in rows)
        and evaluation.iou == float(levels[0][2:]) / 100
    )


def test_pascal_voc_without_tables():
    numbers, evaluation = measured(Adapter(), VOCMetric(metric='recall'), BALLS, random_objects(1, crowds=0))
    assert not evaluation.tables and "metric='recall'" in evaluation.left_out
    assert list(evaluation.overall.values()) == pytest.approx(list(numbers.values()))


def test_pascal_voc_counts_ignored_objects_neither_way():
    annotated = [[10, 10, 30, 30], [50, 50, 80, 80]], [0, 0], [0, 1]
    _, evaluation = measured(
        Adapter(), VOCMetric(), BALLS, [objects((annotated[0], [0, 0], [0.8, 0.9]), annotated)] * 2
    )
    assert evaluation.tables[0].rows[1][-4:] == [pytest.approx(0.4), 1.0, 1.0, 1.0]
    assert evaluation.confusion.tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]


class StrangersMetric(BaseMetric):
    """Counts images, by a method of its own."""

    default_prefix = 'mine'

    def process(self, data_batch, data_samples):
        self.results += [1] * len(data_samples)

    def compute_metrics(self, results):
        return {'images': len(results), 'table': [1, 2], 'none': float('nan'), 'name': 'x'}


class OwnResults(CocoMetric):
    """Handles results in its own way."""

    def process(self, data_batch, data_samples):
        super().process(data_batch, data_samples)
        assert set(self.results[-1][1]) >= {'bboxes', 'scores'}


@pytest.mark.parametrize('kind', ['stranger', 'own', 'dump'])
def test_metrics_of_other_classes(kind, tmp_path):
    """Their numbers are shown as they are, and nothing is guessed."""
    metric = {
        'stranger': StrangersMetric, 'own': OwnResults, 'dump': lambda: DumpDetResults(str(tmp_path / 'a.pkl')),
    }[kind]()  # fmt: skip
    numbers, evaluation = measured(Adapter(), metric, BALLS, random_objects(4))
    assert (
        not evaluation.tables
        and evaluation.confusion is None
        and evaluation.overall == {}
        and 'no metric' in evaluation.left_out
    )
    assert evaluation.others == {'stranger': {'mine/images': 4, 'mine/none': None}, 'dump': {}}.get(kind, numbers)
    json.dumps(evaluation.as_json(), allow_nan=False)


def test_a_metric_that_is_made_of_ours():
    """It evaluates at one IoU more: the tables are of its first evaluation; its numbers are all there."""

    class Twice(CocoMetric):
        def compute_metrics(self, results):
            return {**super().compute_metrics(results), 'occluded_recall': 25.0}

    numbers, evaluation = measured(Adapter(), Twice(), BALLS, random_objects())
    assert (
        evaluation.others == {'coco/occluded_recall': 25}
        and evaluation.overall['box AP'] == numbers['coco/bbox_mAP']
        and evaluation.tables
    )


def test_a_second_validation_replaces_the_first():
    from mmengine.evaluator import Evaluator

    metric = CocoMetric()
    _, observed = observer_of(Adapter(), metric)
    evaluator, right = Evaluator([metric]), ([[10, 10, 30, 30]], [0], [0.9])
    evaluator.dataset_meta = BALLS
    for predicted in (([[50, 50, 60, 60]], [0], [0.9]), right):
        evaluator.process([objects(predicted, right[:2])])
        numbers = evaluator.evaluate(1)
    assert numbers['coco/bbox_mAP'] == 1 and observed.latest.compared[0].table.rows[0][2] == pytest.approx(1)
    assert len(observed.latest.results) == len(observed.latest.notes) == 1


# --- pairs of predictions and objects ---


@pytest.mark.parametrize('is_first', [True, False])
def test_an_object_is_found_once(is_first):
    """Wherever it stands in the file, and whatever lies far away."""
    near, far = ([10, 10, 30, 30], 0), ([60, 60, 90, 90], 1)
    boxes, labels = zip(*([near, far] if is_first else [far, near]))
    _, evaluation = boxes_of([objects(([near[0]] * 3, [0, 0, 1], [0.9, 0.8, 0.7]), (boxes, labels))], [0.5, 0.5])
    assert evaluation.confusion.tolist() == [[1, 0, 0], [0, 0, 1], [1, 1, 0]] and evaluation.worst[
        0
    ].score == pytest.approx(0.4)


@pytest.mark.parametrize('kinds', [1, 2])
@pytest.mark.parametrize('options', [{}, {'proposal_nums': (1, 10, 100)}], ids=str)
def test_an_image_of_many_objects(kinds, options):
    """AP counts as many boxes of a class as the metric's ``proposal_nums``; thresholds and confusions are of all."""
    boxes = [[x, y, x + 4, y + 4] for x in range(0, 90, 6) for y in range(0, 60, 6)]
    labels = [number % kinds for number in range(len(boxes))]
    _, evaluation = boxes_of([objects((boxes, labels, [0.9] * len(boxes)), (boxes, labels))], **options)
    (_, ball, box), most = evaluation.tables[0].rows, len(boxes) // kinds
    counted = min(1, 100 / most) if options else 1
    assert ball[1] == most == 150 // kinds and ball[2] == pytest.approx(counted, abs=0.01)
    assert ball[-3:] == [1.0, 1.0, 1.0] and evaluation.confusion.diagonal().tolist() == [most, 150 - most, 0]
    assert (box[2] is None) == (kinds == 1)


@pytest.mark.parametrize(
    ('boxes', 'annotated', 'counts', 'score'),
    [
        # an object found, and a prediction on a difficult one: right
        ([[10, 10, 30, 30], [50, 50, 80, 80]], ([[10, 10, 30, 30], [50, 50, 80, 80]], [0, 0], [0, 1]), (1, 0), 1.0),
        # a small prediction inside a large crowd, of which it covers little
        ([[10, 10, 30, 30], [50, 50, 55, 55]], ([[10, 10, 30, 30], [40, 40, 90, 90]], [0, 0], [0, 1]), (1, 0), 1.0),
        # less than half of the prediction is in the crowd
        ([[10, 10, 30, 30], [50, 50, 80, 80]], ([[10, 10, 30, 30], [70, 50, 160, 80]], [0, 0], [0, 1]), (1, 1), 2 / 3),
        # what is of an object counts as such, though a crowd lies over it
        ([[10, 10, 30, 30]], ([[10, 10, 30, 30], [0, 0, 60, 60]], [0, 0], [0, 1]), (1, 0), 1.0),
        # only a crowd
        ([[10, 10, 30, 30]], ([[0, 0, 60, 60]], [0], [1]), (0, 0), 1.0),
    ],
)
def test_predictions_on_ignored_objects_count_neither_way(boxes, annotated, counts, score):
    counted = np.zeros((2, 2), int)
    predictions = {'boxes': boxes, 'labels': [0] * len(boxes), 'scores': np.linspace(0.9, 0.5, len(boxes))}
    record = Record('a.jpg', (100, 100), predictions, dict(zip(('boxes', 'labels', 'ignored'), annotated)))
    assert compare_objects(record, [0.3], counted, [], 0.5) == pytest.approx(score)
    assert (counted[0, 0], counted[1, 0]) == counts and counted[0, 1] == 0


def test_a_prediction_far_from_every_annotation_is_listed():
    """Not the one beside an object that it misses, and not the one in a crowd."""
    boxes = [[10, 10, 30, 30], [60, 60, 80, 80], [22, 10, 42, 30], [90, 0, 99, 9]]
    samples = [
        objects((boxes, [0, 1, 0, 0], [0.9, 0.8, 0.7, 0.6]), ([[10, 10, 30, 30], [85, 0, 100, 15]], [0, 0], [0, 1]))
    ]
    _, evaluation = boxes_of(samples, [0.3, 0.3])
    assert [index for _, index in evaluation.unannotated] == [1]
    assert boxes_of(samples, [0.3, 0.85])[1].unannotated == []
    assert evaluation.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0]]


def test_samples_without_a_path():
    """The numbers are there, and the tables; there is no image to show."""
    samples = random_objects(3)
    for sample in samples:
        del sample['img_path']
    numbers, evaluation = boxes_of(samples)
    assert agrees(numbers, evaluation) and [record.path for record in evaluation.worst] == ['', '', '']
    metric = VOCMetric()
    for sample in samples:
        del sample['ori_shape']
    numbers, evaluation = measured(Adapter(), metric, BALLS, samples)
    assert (
        numbers['pascal_voc/mAP'] == evaluation.overall['box AP'] > 0
        and 'VOCMetric: its samples do not tell' in evaluation.left_out
    )
    assert not evaluation.tables and not evaluation.thresholds


def test_two_sets_with_a_metric_each():
    """As mmdet's evaluator of several datasets computes them: each from its part of all results."""
    from mmdet.evaluation.evaluator import MultiDatasetsEvaluator
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    kinds = [dict(type='CocoMetric'), dict(type='CocoMetric', metric='proposal')]
    evaluator = MultiDatasetsEvaluator(kinds, ['a', 'b'])
    observed = [observer_of(Adapter(), metric)[1] for metric in evaluator.metrics]
    evaluator.dataset_meta = {**BALLS, 'cumulative_sizes': [3, 6]}
    evaluator.process(random_objects(6))
    numbers = evaluator.evaluate(6)
    assert 'a/coco/bbox_mAP' in numbers and 'b/coco/AR@100' in numbers
    task = Adapter().described(BALLS)
    evaluation = evaluation_of(task, [(metric, metric.latest) for metric in observed], numbers, 6)
    assert len(observed[0].latest.results) == 3 and evaluation.tables[0].rows[0][1] < 18
    assert evaluation.overall['a/box AP'] == numbers['a/coco/bbox_mAP'] and len(evaluation.overall) == len(numbers)
