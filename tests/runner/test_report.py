"""The page that a run writes."""

import json
import logging
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from icconv_mm import evaluation
from icconv_mm.evaluation import best_threshold, evaluate, record_of, stored_thresholds
from icconv_mm.hooks import logs
from icconv_mm.hooks.evaluation import EvaluationHook
from icconv_mm.runner import report
from icconv_mm.runner.config import as_run
from icconv_mm.runner.train import train
from icconv_mm.tasks.adapter import TaskAdapter
from icconv_mm_runtime.drawing import drawing_of
from icconv_mm_runtime.thresholds import DEFAULT_SCORE
from icconv_workshop import browser as driver

HOSTILE = '<script>document.title=1</script>'
FORMULA = r'$\frac{1$'  # matplotlib's own reader of formulas refuses it
BALLS = {'kind': 'detection', 'classes': ['ball', 'box'], 'palette': None}


def objects(boxes, labels, **more):
    return {'boxes': np.array(boxes, float).reshape(-1, 4), 'labels': np.array(labels, int), **more}


def truth(boxes, labels, ignored=None):
    found = objects(boxes, labels, ignored=np.array([False] * len(labels) if ignored is None else ignored, bool))
    return {**found, 'areas': (found['boxes'][:, 2:] - found['boxes'][:, :2]).prod(1)}


def record(found, told, path='a.jpg'):
    boxes, labels, scores = found
    return record_of(path, (100, 100), objects(boxes, labels, scores=np.array(scores, float)), truth(*told))


def test_thresholds_have_the_largest_f1():
    scores, hits = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([True, True, False, True, False])
    every = {}
    for score in scores:  # by the definition
        kept = scores >= score
        every[score] = 2 * (hits & kept).sum() / (kept.sum() + 4)
    threshold, precision, recall, f1 = best_threshold(scores, hits, 4)
    assert f1 == max(every.values()) and 0.5 < threshold <= 0.6
    assert (precision, recall) == (0.75, 0.75)
    assert best_threshold(scores[:0], hits[:0], 4) is None and best_threshold(scores, ~hits & hits, 4) is None
    # of equal scores, a threshold keeps all or none
    assert best_threshold(np.array([0.5, 0.5, 0.5]), np.array([True, False, False]), 1)[1] == pytest.approx(1 / 3)


@pytest.mark.parametrize('scores', [[0.50002, 0.5, 0.49998], [3e-5, 2e-5, 1e-5]])
def test_a_threshold_keeps_what_it_was_measured_by(scores):
    threshold, precision, _, _ = best_threshold(np.array(scores), np.array([True, False, False]), 1)
    assert precision == 1 and (np.array(scores) >= threshold).tolist() == [True, False, False]


@pytest.mark.parametrize('is_first', [True, False])
def test_an_object_is_found_once(is_first):
    """Wherever it stands in the file, and whatever lies far away."""
    own, far = ([10, 10, 30, 30], 0), ([60, 60, 90, 90], 1)
    boxes, labels = zip(*([own, far] if is_first else [far, own]))
    found = record(([own[0]] * 3, [0, 0, 1], [0.9, 0.8, 0.7]), (boxes, labels))
    made = evaluate(BALLS, [found], [0.5, 0.5])
    assert made.confusion.tolist() == [[1, 0, 0], [0, 0, 1], [1, 1, 0]] and found.score == pytest.approx(0.4)


def test_a_class_may_be_called_all():
    task = {**BALLS, 'classes': ['all', 'dog']}
    made = evaluate(task, [record(([[10, 10, 30, 30]], [0], [0.9]), ([[10, 10, 30, 30]], [0]))])
    _, *lines = report._lines('', made)
    assert [line.partition(':')[0].strip() for line in lines] == ['all', 'dog'] and 'objects 1' in lines[0]


@pytest.mark.parametrize('kinds', [1, 2])
def test_an_image_of_many_objects(kinds):
    """AP counts 100 boxes of a class, as COCO's does; thresholds and confusions are of all."""
    boxes = [[x, y, x + 4, y + 4] for x in range(0, 90, 6) for y in range(0, 60, 6)]
    labels = [number % kinds for number in range(len(boxes))]
    made = evaluate(BALLS, [record((boxes, labels, [0.9] * len(boxes)), (boxes, labels))])
    (_, ball, box), most = made.tables[0].rows, len(boxes) // kinds
    assert ball[1] == most == 150 // kinds and ball[2] == pytest.approx(min(1, 100 / most), abs=0.01)
    assert ball[-3:] == [1.0, 1.0, 1.0] and made.confusion.diagonal().tolist() == [most, 150 - most, 0]
    assert (box[2] is None) == (kinds == 1)


def test_metrics_equal_those_of_coco_evaluation(tmp_path):
    """Those of mmdet's metric, over random boxes of three sizes with a crowd."""
    metrics = pytest.importorskip('mmdet.evaluation')
    rng = np.random.default_rng(0)
    records, entries, results = [], [], []
    for number in range(1, 13):
        low = rng.uniform(0, 150, (6, 2))
        boxes = np.hstack([low, low + rng.choice([12, 50, 120], (6, 1)) * rng.uniform(0.8, 1.2, (6, 2))])
        labels, ignored = rng.integers(0, 2, 6), rng.random(6) < 0.15
        near = boxes + rng.normal(0, 4, boxes.shape)
        found = objects(near, labels, scores=rng.random(6))
        records.append(record_of(f'{number}.jpg', (300, 300), found, truth(boxes, labels, ignored)))
        for box, label, crowd in zip(boxes, labels, ignored):
            x, y, right, bottom = box.tolist()
            sizes = {'bbox': [x, y, right - x, bottom - y], 'area': (right - x) * (bottom - y)}
            ids = {'id': len(entries) + 1, 'image_id': number, 'category_id': int(label) + 1}
            entries.append({**ids, 'iscrowd': int(crowd), **sizes})
        results.append((number, found))
    images = [{'id': number, 'width': 300, 'height': 300, 'file_name': f'{number}.jpg'} for number, _ in results]
    categories = [{'id': i, 'name': name} for i, name in enumerate(BALLS['classes'], 1)]
    file = tmp_path / 'a.json'
    file.write_text(json.dumps({'images': images, 'annotations': entries, 'categories': categories}))
    metric = metrics.CocoMetric(str(file), proposal_nums=(1, 10, 100), classwise=True, format_only=False)
    metric.dataset_meta = {'classes': BALLS['classes']}
    metric.results = [
        (
            {'img_id': number},
            {'img_id': number, 'bboxes': found['boxes'], 'scores': found['scores'], 'labels': found['labels']},
        )
        for number, found in results
    ]
    expected = metric.compute_metrics(metric.results)
    made = evaluate(BALLS, records)
    table = made.tables[0]
    assert table.columns[:8] == ['class', 'objects', 'AP', 'AP50', 'AP75', 'AP small', 'AP medium', 'AP large']
    names = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', 'bbox_mAP_s', 'bbox_mAP_m', 'bbox_mAP_l')
    np.testing.assert_allclose(table.rows[0][2:8], [expected[name] for name in names], atol=6e-4)  # rounded
    assert [row[2] for row in table.rows[1:]] == pytest.approx(
        [expected[f'{name}_precision'] for name in BALLS['classes']], abs=6e-4
    )
    assert table.rows[0][1] == sum(not entry['iscrowd'] for entry in entries)


@pytest.mark.parametrize(
    ('boxes', 'told', 'counts', 'score'),
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
def test_predictions_on_ignored_objects_count_neither_way(boxes, told, counts, score):
    counted = np.zeros((2, 2), int)
    own = record((boxes, [0] * len(boxes), np.linspace(0.9, 0.5, len(boxes))), told)
    assert evaluation._compare_objects(own, [0.3], counted, []) == pytest.approx(score)
    assert (counted[0, 0], counted[1, 0]) == counts and counted[0, 1] == 0


def test_a_prediction_far_from_every_annotation_is_listed():
    """Not the one beside an object that it misses, and not the one in a crowd."""
    boxes = [[10, 10, 30, 30], [60, 60, 80, 80], [22, 10, 42, 30], [90, 0, 99, 9]]
    own = record((boxes, [0, 1, 0, 0], [0.9, 0.8, 0.7, 0.6]), ([[10, 10, 30, 30], [85, 0, 100, 15]], [0, 0], [0, 1]))
    made = evaluate(BALLS, [own], [0.3, 0.3])
    assert [index for _, index in made.unannotated] == [1]
    assert evaluate(BALLS, [own], [0.3, 0.85]).unannotated == []
    assert made.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0]]


def test_seg_maps_of_large_images():
    """The map of an image that was read reduced is compared with the labels of the whole; 255 is ignored."""
    labels = np.zeros((80, 120), np.uint8)
    labels[:, 60:] = 1
    own = record_of('a.png', (80, 120), {'seg_map': labels[::2, ::2]}, {'seg_map': labels})
    assert own.score == 1.0 and own.pixels.tolist() == [[0, 0, 4800], [1, 1, 4800]]
    labels[:40] = 255
    wrong = record_of('b.png', (80, 120), {'seg_map': np.zeros((80, 120), np.uint8)}, {'seg_map': labels})
    made = evaluate({'kind': 'semantic', 'classes': ['road', 'sky', 'sea']}, [own, wrong])
    assert made.confusion.tolist() == [[7200, 0, 0], [2400, 4800, 0], [0, 0, 0]]
    assert [row[2] for row in made.tables[0].rows] == pytest.approx([(0.75 + 2 / 3) / 2, 0.75, 2 / 3, None])


def test_only_the_worst_maps_are_kept():
    labels = np.zeros((4, 4), np.uint8)
    records = []
    for wrong in range(10):
        found = labels.copy()
        found.flat[:wrong] = 1
        records.append(record_of(f'{wrong}', (4, 4), {'seg_map': found}, {'seg_map': labels}))
    evaluation.without_surplus_maps(records)
    assert [each.path for each in records if each.truth] == ['4', '5', '6', '7', '8', '9']
    assert sum(each.pixels[:, 2].sum() for each in records) == 160


def person(points, shift=0.0):
    points = np.array(points, float) + shift
    return points, np.array([*points.min(0), *points.max(0)])


def test_keypoints_have_a_line_and_an_error_in_pixels():
    points, box = person([[10, 10], [10, 60], [40, 60]])
    told = {
        'keypoints': np.stack([points, points + 30]), 'visible': np.array([[2, 2, 0], [2, 2, 2]]),
        'areas': np.full(2, 1500.0), 'boxes': np.stack([box, box + 30]), 'ignored': np.array([False, True]),
    }  # fmt: skip
    found = points.copy()
    found[0] += 3, 4  # five pixels, as much as counts as near
    found[1] += 0, 2
    own = record_of('a.jpg', (100, 100), {'keypoints': found[None], 'scores': np.array([0.7])}, told)
    task = {'kind': 'pose', 'classes': ['person'], 'keypoints': ['nose', HOSTILE, 'tail'], 'sigmas': [0.1] * 3}
    made = evaluate(task, [own])
    assert made.tables[1].rows == [
        ['all', 2, 0.5, '3.5 px'],
        ['nose', 1, 0.0, '5.0 px'],
        [HOSTILE, 1, 1.0, '2.0 px'],
        ['tail', 0, None, None],
    ]
    assert own.score == 0.5 and made.confusion is None  # the crowd is not missed


def test_people_without_a_labelled_keypoint_are_not_missed():
    points, box = person([[10, 10], [10, 60], [40, 60]])
    told = {
        'keypoints': np.stack([points, points + 30]), 'visible': np.array([[2, 2, 2], [0, 0, 0]]),
        'areas': np.full(2, 1500.0), 'boxes': np.stack([box, box + 30]), 'ignored': np.zeros(2, bool),
    }  # fmt: skip
    task = {'kind': 'pose', 'classes': ['person'], 'keypoints': ['nose', 'ear', 'tail'], 'sigmas': [0.1] * 3}
    own = record_of('a.jpg', (100, 100), {'keypoints': points[None], 'scores': np.array([0.7])}, told)
    (row,) = evaluate(task, [own]).tables[0].rows
    assert row[1:3] == [1, pytest.approx(1)] and row[-2] == 1


def test_a_crowded_image_of_people():
    people, boxes = zip(*(person([[0, 0], [0, 8], [6, 8]], 9.0 * number) for number in range(30)))
    told = {
        'keypoints': np.stack(people), 'visible': np.full((30, 3), 2), 'areas': np.full(30, 40.0),
        'boxes': np.stack(boxes), 'ignored': np.zeros(30, bool),
    }  # fmt: skip
    task = {'kind': 'pose', 'classes': ['person'], 'keypoints': ['nose', 'ear', 'tail'], 'sigmas': [0.1] * 3}
    found = {'keypoints': np.stack(people), 'scores': np.full(30, 0.9)}
    (row,) = evaluate(task, [record_of('a.jpg', (400, 400), found, told)]).tables[0].rows
    assert row[2] == pytest.approx(2 / 3, abs=0.01) and row[-3:] == [1.0, 1.0, 1.0]  # AP is of 20, as COCO's


def test_whole_images():
    scores = np.array([[0.8, 0.2], [0.9, 0.1], [0.3, 0.7]])
    records = [
        record_of(str(i), (4, 4), {'scores': each}, {'label': label})
        for i, (each, label) in enumerate(zip(scores, (0, 1, 1)))
    ]
    made = evaluate({'kind': 'classification', 'classes': ['cat', 'dog']}, records)
    assert made.confusion.tolist() == [[1, 0], [1, 1]] and made.overall == {'accuracy': pytest.approx(2 / 3)}
    assert made.tables[0].rows == [
        ['cat', 1, 0.5, 1.0, pytest.approx(2 / 3)],
        ['dog', 2, 1.0, 0.5, pytest.approx(2 / 3)],
    ]
    assert [(own.path, index) for own, index in made.unannotated] == [('1', 0)]


@pytest.mark.parametrize(
    ('key', 'name'),
    [
        ('coco/bbox_mAP', 'box AP'), ('coco/bbox_mAP_50', 'box AP50'),
        ('instance/coco/segm_mAP_s', 'instance/mask APs'), ('coco/RBC_precision', 'RBC AP'),
        ('pose/coco/AP .5', 'pose/AP50'), ('coco/AP', 'AP'), ('mIoU', 'mIoU'),
    ],
)  # fmt: skip
def test_metrics_have_the_usual_names(key, name):
    assert report.metric_name(key) == name


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
def test_curves_are_those_of_the_last_run(tmp_path, second, shown):
    log(tmp_path, '1', (10, 20, 30, 40, 50))
    log(tmp_path, '2', second)
    curves = logs.logged_curves(tmp_path)
    assert curves['loss']['loss'] == shown and set(curves['metric']['acc']) == {second[-1]}


def test_lines_of_a_log_that_are_no_entries(tmp_path):
    """Such as the last one of a run that was killed while it wrote."""
    log(tmp_path, '1', (10, 20))
    file = tmp_path / '1/vis_data/scalars.json'
    damaged = ('{"lr": 0.1, "lo', '[1]', '3', '', '\xff', '{"step": "3"}', '{"step": NaN}', '{"step": null}')
    entries = logs._logged(file, steps=1)
    file.write_bytes('\n'.join([*damaged, file.read_text(), *damaged]).encode('latin-1'))
    assert len(entries) == 3 and logs._logged(file, steps=1) == entries


def test_metrics_that_are_no_scores():
    none = [('coco/bbox_mAP', -1), ('boxes/coco/segm_mAP', -1.0), ('pose/coco/AR', -1.0), ('mIoU', float('nan'))]
    scores = [('coco/bbox_mAP', 0.0), ('gain', -1.0), ('coco/AP .5', 0.3), ('table', '-1')]
    assert [logs._is_unmeasured(*each) for each in none + scores] == [True] * 4 + [False] * 4


# --- thresholds ---


def test_thresholds_lie_beside_the_checkpoint(tmp_path):
    def stored(content, names=('ball', 'box')):
        (tmp_path / 'report.json').write_text(content if isinstance(content, str) else json.dumps(content))
        return stored_thresholds(str(tmp_path / 'best.pth'), '', names)

    content = {'tasks': {'': {'classes': ['ball', 'box'], 'thresholds': [0.4, None]}}}
    assert stored_thresholds(str(tmp_path / 'best.pth'), '', ['ball', 'box']) is None
    assert stored(content) == [0.4, None]
    assert stored(content, ('box', 'ball')) is None  # of another training
    for wrong in ([0.4], [0.4, 2], [0.4, 'a'], [0.4, float('nan')], None, 3):
        assert stored({'tasks': {'': {'classes': ['ball', 'box'], 'thresholds': wrong}}}) is None
    for wrong in ('', '[]', '{"tasks": []}', '[' * 100_000):
        assert stored(wrong) is None


def test_each_class_is_drawn_from_its_own_threshold():
    found = objects([[0, 0, 5, 5]] * 4, [0, 1, 1, 0], scores=np.array([0.35, 0.35, 0.6, 0.25]))

    def texts(task, *least):
        return sorted(item.text for item in drawing_of(task, found, *least).objects)

    assert texts(BALLS) == ['ball 0.35', 'box 0.35', 'box 0.60'] and DEFAULT_SCORE == 0.3
    task = {**BALLS, 'thresholds': [None, 0.5]}
    assert texts(task) == ['ball 0.35', 'box 0.60']
    assert texts(task, 0.2) == ['ball 0.25', 'ball 0.35', 'box 0.35', 'box 0.60']  # given by the user


# --- the page ---


def hook_of(task, records, **speeds):
    hook = EvaluationHook(TaskAdapter())
    hook._tasks, hook._kept, hook.speeds = {'': task}, [{'': each} for each in records], speeds
    return hook


def runner_of(folder, **more):
    from torch import nn

    model = nn.Linear(2, 2)
    cfg = SimpleNamespace(model={'type': 'mmdet.FasterRCNN', 'backbone': {'type': HOSTILE}}, filename='c.py',
                          pretty_text=f'# {HOSTILE}', get=lambda *_: None)  # fmt: skip
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=[1], batch_size=1), iter=3, max_iters=5)
    return SimpleNamespace(work_dir=str(folder), model=model, cfg=cfg, seed=0, train_loop=loop, hooks=[], **more)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """A page of hostile names, with every section, after a training."""
    pytest.importorskip('matplotlib')
    folder = tmp_path_factory.mktemp('run')
    image = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    path = folder / '<img src=x onerror=document.title=1>.png'
    cv2.imwrite(str(path), image)
    names = [HOSTILE, FORMULA, 'n' * 300]
    found = ([[10, 10, 30, 30], [60, 60, 90, 90], [0, 0, 9, 9]], [0, 1, 2], [0.9, 0.8, 0.2])
    own = record(found, ([[10, 10, 30, 30], [40, 10, 60, 30]], [0, 2]), str(path))
    log(folder, '1', (10, 20, 30))
    (folder / 'last_checkpoint').write_text(str(folder / f'{HOSTILE.replace("/", "")}.pth'))
    said = []
    task = {**BALLS, 'classes': names}
    page = report.write_report(runner_of(folder), hook_of(task, [own], training=3.0), f'{HOSTILE}.py', say=said.append)
    return SimpleNamespace(page=page, text=page.read_text(), said=said, folder=folder)


def test_names_are_escaped(written):
    assert '<script' not in written.text and '<img src=x' not in written.text
    assert '&lt;script&gt;' in written.text and 'n' * 300 in written.text
    for heading in (
        'Curves',
        'Precision and recall',
        'Confusion matrix',
        'Worst images',
        'Annotations that look missing',
    ):
        assert heading in written.text
    links = re.findall(r'(?:src|href)="([^"]*)', written.text)
    assert links and all(link.startswith(('data:', '#')) for link in links)
    assert written.page.stat().st_size < 1e6


def test_what_is_stored_and_printed(written):
    stored = json.loads((written.folder / 'report.json').read_text())['tasks']['']
    assert stored['thresholds'] == [0.45, None, None] and stored['confusion'][0][0] == 1
    assert stored_thresholds(str(written.folder / 'best.pth'), '', stored['classes']) == [0.45, None, None]
    assert written.said[0].startswith('detection: box AP ') and written.said[-1].startswith('report: ')


@pytest.mark.parametrize(('width', 'scheme'), [(1100, 'light'), (1100, 'dark'), (390, 'light'), (390, 'dark')])
def test_in_a_browser(written, width, scheme):
    """No script runs, nothing is wider than the page, text is legible on its ground, every image is there."""
    if driver.executable() is None:
        pytest.skip('no Chromium is installed')
    with driver.browser() as page:
        page.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme}])
        page.call(
            'Emulation.setDeviceMetricsOverride', width=width, height=800, deviceScaleFactor=1, mobile=width < 500
        )
        page.open(written.page.as_uri())
        assert page.run('document.title') != '1'
        assert page.run('document.scripts.length') == 0
        assert page.run('document.documentElement.scrollWidth <= innerWidth')
        assert page.run('[...document.images].every((image) => image.naturalWidth > 100)')
        colors = page.run(
            "['color', 'backgroundColor'].map((key) => getComputedStyle(document.body)[key].match(/\\d+/g).map(Number))"
        )
        ink, ground = (np.array(each) @ [0.299, 0.587, 0.114] for each in colors)
        assert (ink < 60 and ground > 200) if scheme == 'light' else (ink > 200 and ground < 60)
        drawn = page.run("getComputedStyle(document.querySelector('svg text')).fill.match(/\\d+/g).map(Number)")
        assert drawn == colors[0]  # text of plots
        problems = [
            each['params'] for each in page.events if each['method'] in ('Log.entryAdded', 'Runtime.exceptionThrown')
        ]
        assert not problems


def test_what_fails_after_a_training_is_a_warning(cfg, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logs, 'print_log', lambda text, logger, level: said.append((level, text)))

    def fail(*args, **options):
        raise MemoryError('no room\nfor it \x1b')

    monkeypatch.setattr(report, 'write_report', fail)
    train(as_run(cfg(default_scope='mmdet', train_cfg__max_iters=1)))
    warnings = [text for level, text in said if level == logging.WARNING]
    assert warnings == ['the run has ended well, but writing its report failed: MemoryError: no room']
    assert all(r'for it \x1b' in text for level, text in said if level == logging.DEBUG)  # with the traceback


@HOOKS.register_module(force=True)
class InterruptingHook(Hook):
    """Is Ctrl-C in the third iteration."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2:
            raise KeyboardInterrupt


def test_an_interrupted_training_has_a_page(cfg, tmp_path):
    """With the command that goes on; the checkpoint of its last validation is there."""
    saving = {
        'checkpoint': {
            'type': 'CheckpointHook',
            'interval': 1,
            'by_epoch': False,
            'save_best': 'score',
            'rule': 'greater',
        }
    }
    made = cfg(
        default_scope='mmdet', train_cfg__max_iters=5, default_hooks=saving, custom_hooks=[{'type': 'InterruptingHook'}]
    )
    with pytest.raises(KeyboardInterrupt):
        train(as_run(made))
    page = (tmp_path / 'report.html').read_text()
    assert 'The training was interrupted.' in page and '2 of 5 iterations' in page and '--resume' in page
    (best,) = tmp_path.glob('best_score_iter_*.pth')
    assert best.name in page


def test_a_network_of_an_unknown_task_has_a_page(cfg, tmp_path):
    """Which says why there are no results by class."""
    train(as_run(cfg(default_scope='mmdet', train_cfg__max_iters=1)))
    assert 'Predictions were not evaluated by class: AttributeError' in (tmp_path / 'report.html').read_text()
    assert not (tmp_path / 'report.json').exists()
