"""The report shows what mmpretrain's metrics have measured, whatever their options."""

import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain')

from measured import measured
from mmpretrain.evaluation import Accuracy, MultiLabelMetric, SingleLabelMetric

from icconv_mm.app.adapters.classification import Adapter

ANIMALS = {'classes': ['cat', 'dog', 'cow'], 'palette': None}


def images(scores, labels):
    return [
        {'img_path': f'{i}', 'ori_shape': (4, 4), 'pred_score': torch.tensor(score), 'gt_label': torch.tensor([label])}
        for i, (score, label) in enumerate(zip(scores, labels))
    ]


def drawn(count=40):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    scores = rng.dirichlet([1, 1, 1], count) + np.eye(3)[labels] * 0.5
    return images((scores / 1.5).tolist(), labels.tolist())


@pytest.mark.parametrize(
    ('kind', 'options', 'said'),
    [
        (Accuracy, {}, ''),
        (Accuracy, {'topk': (1, 2)}, ''),
        (Accuracy, {'topk': 2}, ''),
        (Accuracy, {'thrs': None}, ''),
        (Accuracy, {'thrs': (0.0, 0.6)}, ''),
        (Accuracy, {'thrs': 0.6}, 'with thrs, '),
        (Accuracy, {'prefix': 'mine'}, ''),
        (SingleLabelMetric, {}, ''),
        (SingleLabelMetric, {'average': None}, ''),
        (SingleLabelMetric, {'average': 'micro'}, ''),
        (SingleLabelMetric, {'items': ('precision', 'support')}, ''),
        (SingleLabelMetric, {'thrs': 0.6}, 'with thrs, '),
    ],
    ids=str,
)
def test_whole_images(kind, options, said):
    numbers, evaluation = measured(Adapter(), kind(**options), ANIMALS, drawn())
    scalars = {key: float(value) for key, value in numbers.items() if np.ndim(value) == 0}
    counts = {key: value for key, value in scalars.items() if 'support' in key}
    shares = {
        key.replace('accuracy/top1', 'accuracy'): value / 100 for key, value in scalars.items() if key not in counts
    }
    assert evaluation.overall == pytest.approx(shares) and evaluation.others == pytest.approx(counts)
    assert (
        said in evaluation.left_out and bool(evaluation.tables) == (not said) and bool(evaluation.worst) == (not said)
    )
    if said:
        return
    assert evaluation.confusion.sum() == 40 and len(evaluation.worst) == 6
    rows = evaluation.tables[0].rows
    right = evaluation.confusion.trace() / 40
    if kind is Accuracy:
        assert options.get('topk') == 2 or next(iter(evaluation.overall.values())) == pytest.approx(right)
    elif options.get('average', 'macro') == 'macro':
        assert evaluation.overall['single-label/precision'] == pytest.approx(np.mean([row[2] for row in rows]))
    elif options['average'] is None:
        assert [row[2] for row in rows] == pytest.approx(np.array(numbers['single-label/precision_classwise']) / 100)
        assert [row[4] for row in rows] == pytest.approx(np.array(numbers['single-label/f1-score_classwise']) / 100)


def test_three_images_by_hand():
    scores = [[0.8, 0.2], [0.9, 0.1], [0.3, 0.7]]
    meta = {'classes': ['cat', 'dog'], 'palette': None}
    _, evaluation = measured(Adapter(), Accuracy(), meta, images(scores, (0, 1, 1)))
    assert evaluation.confusion.tolist() == [[1, 0], [1, 1]] and evaluation.overall == {
        'accuracy': pytest.approx(2 / 3)
    }
    assert evaluation.tables[0].rows == [
        ['cat', 1, 0.5, 1.0, pytest.approx(2 / 3)],
        ['dog', 2, 1.0, 0.5, pytest.approx(2 / 3)],
    ]
    assert [(record.path, index) for record, index in evaluation.unannotated] == [('1', 0)]


def test_images_with_several_labels():
    samples = [{**sample, 'gt_score': torch.tensor([1.0, 0.0, 1.0])} for sample in drawn(4)]
    numbers, evaluation = measured(Adapter(), MultiLabelMetric(thr=0.5), ANIMALS, samples)
    assert evaluation.others == pytest.approx(numbers) and 'no metric' in evaluation.left_out and not evaluation.tables
