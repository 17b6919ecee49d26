"""The report shows what mmseg's metric has measured, whatever its options."""

import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')

from measured import measured, seg_map
from mmseg.evaluation import IoUMetric

from icconv_mm.app.adapters.semantic import Adapter

PLACES = {'classes': ['road', 'sky', 'sea', 'never'], 'palette': None}


def maps(count=8, ignored=255):
    """Returns maps of three classes, a fourth of which is predicted wrongly, with ignored pixels."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(count):
        truth = rng.integers(0, 3, (12, 16))
        predicted = np.where(rng.random(truth.shape) < 0.25, rng.integers(0, 3, truth.shape), truth)
        samples.append(seg_map(predicted, np.where(rng.random(truth.shape) < 0.1, ignored, truth), f'{number}.png'))
    return samples


@pytest.mark.parametrize(
    ('options', 'columns'),
    [
        ({}, ['IoU', 'accuracy']),
        ({'ignore_index': 0}, ['IoU', 'accuracy']),
        ({'ignore_index': 2}, ['IoU', 'accuracy']),
        ({'nan_to_num': -1}, ['IoU', 'accuracy']),
        ({'nan_to_num': 0}, ['IoU', 'accuracy']),
        ({'iou_metrics': ['mDice', 'mFscore']}, ['Dice', 'accuracy', 'F score', 'precision', 'recall']),
        ({'iou_metrics': ['mFscore'], 'beta': 2}, ['F score', 'precision', 'recall']),
        ({'iou_metrics': 'mDice'}, ['Dice', 'accuracy']),
        ({'prefix': 'mine'}, ['IoU', 'accuracy']),
    ],
    ids=str,
)
def test_segmentation_maps(options, columns):
    samples = maps()
    numbers, evaluation = measured(Adapter(), IoUMetric(**options), PLACES, samples)
    shown = {key: value / 100 for key, value in numbers.items()}
    assert evaluation.overall == pytest.approx(shown) and not evaluation.others and not evaluation.left_out
    assert list(evaluation.overall)[-1].endswith('aAcc')
    (table,) = evaluation.tables
    assert table.columns == ['class', 'of the pixels', *columns]
    first, *rows = table.rows
    assert [row[0] for row in rows] == PLACES['classes']
    measures = IoUMetric().total_area_to_metrics(*[torch.ones(4)] * 4, metrics=options.get('iou_metrics', ['mIoU']))
    for i, name in enumerate(list(measures)[1:], 2):
        prefix = 'mine/' if 'prefix' in options else ''
        assert first[i] == pytest.approx(shown[f'{prefix}m{name}'])
        values = [row[i] for row in rows if row[i] is not None]
        assert first[i] == pytest.approx(np.mean(values), abs=6e-5)  # mmseg rounds
    # pixels of the ignored value are in no row; those of 255 in none either
    ignored = options.get('ignore_index', 255)
    truth = np.concatenate([sample['gt_sem_seg']['data'].numpy().ravel() for sample in samples])
    assert evaluation.confusion.sum(1).tolist() == [
        int((truth == label).sum()) * (label != ignored) for label in range(4)
    ]
    assert sum(row[1] for row in rows) == pytest.approx(1)
    # that of the sums, as the metric has it
    assert evaluation.confusion.trace() / evaluation.confusion.sum() == pytest.approx(
        next(iter(shown.values())), abs=6e-5
    )
    assert len(evaluation.worst) == 6 and evaluation.worst[0].score == min(record.score for record in evaluation.worst)
    assert all((record.truth['seg_map'] != ignored).all() or ignored == 255 for record in evaluation.worst)


def test_a_map_by_hand():
    labels = np.zeros((80, 120), np.uint8)
    labels[:, 60:] = 1
    right = seg_map(labels, labels, 'a.png')
    labels = labels.copy()
    labels[:40] = 255
    wrong = seg_map(np.zeros((80, 120)), labels, 'b.png')
    _, evaluation = measured(
        Adapter(), IoUMetric(), {'classes': ['road', 'sky', 'sea'], 'palette': None}, [right, wrong]
    )
    assert evaluation.confusion.tolist() == [[7200, 0, 0], [2400, 4800, 0], [0, 0, 0]]
    rows = evaluation.tables[0].rows
    assert [row[2] for row in rows] == [pytest.approx((0.75 + 2 / 3) / 2, abs=1e-4), 0.75, pytest.approx(2 / 3), None]
    assert [(record.path, record.score) for record in evaluation.worst] == [('b.png', 0.5), ('a.png', 1.0)]


def test_only_the_worst_maps_are_kept():
    """Those of a whole dataset would fill the memory."""
    labels, samples = np.zeros((4, 4), np.uint8), []
    for wrong in [3, 9, 0, 1, 8, 2, 7, 6, 4, 5]:
        predicted = labels.copy()
        predicted.flat[:wrong] = 1
        samples.append(seg_map(predicted, labels, str(wrong)))
    metric = IoUMetric()
    evaluation = measured(Adapter(), metric, {'classes': ['a', 'b'], 'palette': None}, samples)[1]
    assert [record.path for record in evaluation.worst] == [
        '9',
        '8',
        '7',
        '6',
        '5',
        '4',
    ] and evaluation.confusion.sum() == 160
    observed = metric.intersect_and_union.__self__
    assert sum(note.maps is not None for note in observed.latest.notes) == 6
    observed.begin()
    assert not observed._worst


def test_maps_that_are_only_written(tmp_path):
    metric = IoUMetric(format_only=True, output_dir=str(tmp_path))
    numbers, evaluation = measured(Adapter(), metric, PLACES, maps(2))
    assert numbers == {} and not evaluation.tables and 'format_only compares nothing' in evaluation.left_out
    assert len(list(tmp_path.glob('*.png'))) == 2
