"""What a run says of itself when it ends."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from PIL import Image

from icconv_mm.hooks import logs
from icconv_mm.runner import evaluate
from icconv_mm.runner.config import as_run
from icconv_mm.runner.explain_errors import boundary
from icconv_mm.runner.train import build_runner, train_runner


def log(folder, name, locations):
    file = folder / name / 'vis_data/scalars.json'
    file.parent.mkdir(parents=True)
    entries = [{'lr': 0.1, 'loss': float(location), 'iter': location, 'step': location} for location in locations]
    file.write_text('\n'.join(map(json.dumps, [*entries, {'acc': 1.0, 'step': locations[-1]}])))


@pytest.mark.parametrize(
    ('second', 'shown'),
    [
        ((10, 20), {10: 10.0, 20: 20.0}),  # begun anew
        ((30, 40), {10: 10.0, 20: 20.0, 30: 30.0, 40: 40.0}),  # resumed
    ],
)
def test_curves_are_those_of_the_last_run(tmp_path, monkeypatch, second, shown):
    matplotlib = pytest.importorskip('matplotlib')
    pytest.importorskip('matplotlib.axes')
    log(tmp_path, '1', (10, 20, 30, 40, 50))
    log(tmp_path, '2', second)
    drawn = {}
    monkeypatch.setattr(
        matplotlib.axes.Axes, 'plot', lambda axis, *points, label, **_: drawn.update({label: dict(zip(*points))})
    )
    monkeypatch.setattr(matplotlib.axes.Axes, 'legend', lambda axis, **_: None)
    logs.draw_curves(tmp_path)
    assert drawn['loss'] == shown and set(drawn['acc']) == {second[-1]}


def test_seg_maps_of_large_images(tmp_path):
    """The map of an image that was read reduced is compared with the labels of the whole."""
    labels = np.zeros((80, 120), np.uint8)
    labels[:, 60:] = 1
    Image.fromarray(labels).save(tmp_path / 'a.png')
    sample = type('Sample', (), {'pred_sem_seg': PixelData(data=torch.from_numpy(labels[::2, ::2].copy())[None])})
    confusion = np.zeros((2, 2), int)
    assert evaluate._compare_maps(None, tmp_path / 'a.png', sample, confusion) == 1.0
    assert confusion.tolist() == [[4800, 0], [0, 4800]]


def annotations(boxes, labels):
    found = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float), scores=torch.linspace(0.9, 0.5, len(boxes)), labels=labels
    )
    return SimpleNamespace(pred_instances=found)


def annotation(box, category=1, iscrowd=0):
    return dict(bbox=box, category_id=category, iscrowd=iscrowd)


@pytest.mark.parametrize(
    ('boxes', 'told', 'confusion', 'score'),
    [
        # an object found, and a prediction on a difficult one: right
        (
            [[10, 10, 30, 30], [50, 50, 80, 80]],
            [annotation([10, 10, 20, 20]), annotation([50, 50, 30, 30], 1, 1)],
            (1, 0),
            1.0,
        ),
        # a small prediction inside a large crowd, of which it covers little
        (
            [[10, 10, 30, 30], [50, 50, 55, 55]],
            [annotation([10, 10, 20, 20]), annotation([40, 40, 50, 50], 1, 1)],
            (1, 0),
            1.0,
        ),
        # less than half of the prediction is in the crowd
        (
            [[10, 10, 30, 30], [50, 50, 80, 80]],
            [annotation([10, 10, 20, 20]), annotation([70, 50, 90, 30], 1, 1)],
            (1, 1),
            2 / 3,
        ),
        # what is of an object counts as such, though a crowd lies over it
        ([[10, 10, 30, 30]], [annotation([10, 10, 20, 20]), annotation([0, 0, 60, 60], 1, 1)], (1, 0), 1.0),
        # only a crowd
        ([[10, 10, 30, 30]], [annotation([0, 0, 60, 60], 1, 1)], (0, 0), 1.0),
    ],
)
def test_predictions_on_ignored_objects_count_neither_way(boxes, told, confusion, score):
    counted = np.zeros((2, 2), int)
    sample = annotations(boxes, torch.zeros(len(boxes), dtype=torch.long))
    assert evaluate._compare_objects(None, told, sample, counted) == pytest.approx(score)
    assert (counted[0, 0], counted[1, 0]) == confusion and counted[0, 1] == 0


def test_a_crowd_of_people_is_not_missed():
    person = dict(bbox=[0, 0, 10, 10], keypoints=[2, 2, 2, 8, 8, 2], iscrowd=0)
    sample = SimpleNamespace(pred_instances=InstanceData(keypoints=np.array([[[2.0, 2.0], [8.0, 8.0]]])))
    crowd = dict(person, keypoints=[50, 50, 2, 60, 60, 2], iscrowd=1)
    assert evaluate._compare_poses(None, [person, crowd], sample, np.zeros((1, 1))) == 1.0
    assert evaluate._compare_poses(None, [person, dict(crowd, iscrowd=0)], sample, np.zeros((1, 1))) == 0.5


def test_metrics_that_are_no_scores():
    none = [('coco/bbox_mAP', -1), ('boxes/coco/segm_mAP', -1.0), ('pose/coco/AR', -1.0), ('mIoU', float('nan'))]
    scores = [('coco/bbox_mAP', 0.0), ('gain', -1.0), ('coco/AP .5', 0.3), ('table', '-1')]
    assert [logs._is_unmeasured(*each) for each in none + scores] == [True] * 4 + [False] * 4


FORMULAS = ('cost in $', r'$\frac{1$', r'$\nothing$', 'plain')  # of which matplotlib's own reader refuses two


def test_names_are_no_formulas(tmp_path):
    pytest.importorskip('matplotlib')
    file = tmp_path / '1/vis_data/scalars.json'
    file.parent.mkdir(parents=True)
    entries = [dict(step=step, lr=0.1, **{f'loss {name}': 1.0 for name in FORMULAS}) for step in (1, 2)]
    file.write_text('\n'.join(map(json.dumps, entries)))
    assert logs.draw_curves(tmp_path).stat().st_size > 5000
    evaluate._draw_confusion(evaluate.Evaluation(list(FORMULAS), np.eye(4, dtype=int)), tmp_path / 'confusion.png')
    assert (tmp_path / 'confusion.png').stat().st_size > 5000


def test_many_classes_make_no_large_figure(tmp_path, monkeypatch):
    """Those with the most mistakes are shown, with shares of all that there are."""
    axes = pytest.importorskip('matplotlib.axes')
    monkeypatch.setattr(evaluate, '_SHOWN', 3)
    drawn = {}
    show = axes.Axes.imshow

    def spy(axis, shares, **more):
        drawn.update(axis=axis, shares=shares)
        return show(axis, shares, **more)

    monkeypatch.setattr(axes.Axes, 'imshow', spy)
    confusion = np.diag([4, 4, 4, 4, 4, 0])
    confusion[1, 3], confusion[1, 0], confusion[4, 3] = 10, 2, 4
    evaluation = evaluate.Evaluation(['absent' if k == 5 else 'n' * 1000 + str(k) for k in range(6)], confusion)
    evaluate._draw_confusion(evaluation, tmp_path / 'confusion.png')
    assert drawn['shares'].tolist() == [[0.25, 0.625, 0], [0, 1, 0], [0, 0.5, 0.5]]  # of 1, 3 and 4
    assert drawn['axis'].get_title() == 'the 3 with the most mistakes of 5 classes'
    assert {len(label.get_text()) for label in drawn['axis'].get_xticklabels()} == {logs.NAME_LETTERS}
    assert max(Image.open(tmp_path / 'confusion.png').size) < 1000


def test_lines_of_a_log_that_are_no_entries(tmp_path):
    """Such as the last one of a run that was killed while it wrote."""
    log(tmp_path, '1', (10, 20))
    file = tmp_path / '1/vis_data/scalars.json'
    damaged = ('{"lr": 0.1, "lo', '[1]', '3', '', '\xff', '{"step": "3"}', '{"step": NaN}', '{"step": null}')
    entries = logs._logged(file, steps=1)
    file.write_bytes('\n'.join([*damaged, file.read_text(), *damaged]).encode('latin-1'))
    assert len(entries) == 3 and logs._logged(file, steps=1) == entries


def test_a_class_that_is_called_as_what_is_not_there():
    """An object has one more row and column, whatever the classes are called."""
    confusion = np.array([[3, 0, 1], [0, 2, 2], [0, 1, 0]])
    assert evaluate.Evaluation(['(none)', 'cat'], confusion).table() == [
        '(none): 75.0% of 4 found, 100.0% of 3 predictions right; most often taken for (none)',
        'cat: 50.0% of 4 found, 66.7% of 3 predictions right; most often taken for (none)',
    ]
    assert (
        len(evaluate.Evaluation(['cat', '(none)'], confusion[:2, :2]).table()) == 2
    )  # of images, without the one more


def test_what_fails_after_a_training_is_a_warning(cfg, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logs, 'print_log', lambda text, logger, level: said.append((level, text)))
    monkeypatch.setattr(logs, 'is_installed', lambda name: True)

    def fail(*args):
        raise MemoryError('no room\nfor it \x1b')

    monkeypatch.setattr(logs, 'draw_curves', fail)
    made = cfg(train_cfg__max_iters=1)
    with boundary(run := as_run(made)) as progress:
        train_runner(build_runner(run, progress))
    (tmp_path / 'last_checkpoint').write_text('iter_1.pth')
    monkeypatch.setattr(evaluate, 'Predictor', fail)
    made.val_ann_file = 'detection_val.json'
    evaluate.evaluate_run(made)
    assert [text for level, text in said if level == logging.WARNING] == [
        'the training has ended well, but drawing results.png failed: MemoryError: no room',
        'the training has ended well, but evaluating its checkpoint failed: MemoryError: no room',
    ]
    assert all(r'for it \x1b' in text for level, text in said if level == logging.DEBUG)  # with the traceback

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, 'Predictor', interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate_run(made)
