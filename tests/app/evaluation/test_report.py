"""The page that a run writes."""

import json
import logging
import re
from types import SimpleNamespace

import cv2
import measured
import numpy as np
import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from icconv_mm.app.adapters import detection as adapter
from icconv_mm.app.evaluation import curves, report
from icconv_mm.app.evaluation.evaluate import metric_name
from icconv_mm.app.evaluation.hook import EvaluationHook
from icconv_mm.app.evaluation.results import best_threshold
from icconv_mm.app.runs.begin import begin
from icconv_mm.app.runs.thresholds import stored_thresholds
from icconv_mm.app.training.hooks import logs
from icconv_mm.app.training.train import train
from icconv_mm_runtime.drawing import drawing_of
from icconv_mm_runtime.thresholds import DEFAULT_SCORE
from icconv_workshop import browser as driver

HOSTILE = '<script>document.title=1</script>'
FORMULA = r'$\frac{1$'  # matplotlib's own reader of formulas refuses it
BALLS = {'kind': 'detection', 'classes': ['ball', 'box'], 'palette': None}


def objects(boxes, labels, **more):
    return {'boxes': np.array(boxes, float).reshape(-1, 4), 'labels': np.array(labels, int), **more}


def test_thresholds_have_the_largest_f1():
    scores, hits = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([True, True, False, True, False])
    every = {}
    for score in scores:  # by the definition
        shown = scores >= score
        every[score] = 2 * (hits & shown).sum() / (shown.sum() + 4)
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


def test_a_class_may_be_called_all():
    sample = measured.objects(([[10, 10, 30, 30]], [0], [0.9]), ([[10, 10, 30, 30]], [0]))
    _, evaluation = measured.boxes_of([sample], meta={'classes': ['all', 'dog']})
    _, *lines = report._lines('', evaluation)
    assert [line.partition(':')[0].strip() for line in lines] == ['all', 'dog'] and 'objects 1' in lines[0]


def test_numbers_of_classes_and_sizes_are_printed_once():
    sample = measured.objects(([[10, 10, 30, 30]], [0], [0.9]), ([[10, 10, 30, 30]], [0]))
    _, evaluation = measured.boxes_of([sample], classwise=True)
    first, *_ = report._lines('', evaluation)
    assert first == 'detection: box AP 100.0, box AP50 100.0, box AP75 100.0 (1 images)'
    assert {'box APs', 'AP of ball', 'AP of box'} < evaluation.overall.keys() and len(
        evaluation.as_json()['metrics']
    ) == len(evaluation.overall)


def test_what_is_left_out_is_told():
    sample = measured.objects(([[10, 10, 30, 30]], [0], [0.9]), ([[10, 10, 30, 30]], [0]))
    _, evaluation = measured.boxes_of([sample], metric='proposal')
    numbers, left_out = report._lines('', evaluation)
    assert numbers.startswith('detection: AR@100 100.0, ') and 'CocoMetric: COCOeval was not run by class' in left_out


@pytest.mark.parametrize(
    ('key', 'name'),
    [
        ('coco/bbox_mAP', 'box AP'), ('coco/bbox_mAP_50', 'box AP50'),
        ('instance/coco/segm_mAP_s', 'instance/mask APs'), ('coco/RBC_precision', 'AP of RBC'),
        ('pose/coco/AP .5', 'pose/AP50'), ('coco/AP', 'AP'), ('mIoU', 'mIoU'),
    ],
)  # fmt: skip
def test_metrics_have_the_usual_names(key, name):
    assert metric_name(key) == name


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
    drawn = curves.logged_curves(tmp_path)
    assert drawn['loss']['loss'] == shown and set(drawn['metric']['acc']) == {second[-1]}


def test_lines_of_a_log_that_are_no_entries(tmp_path):
    """Such as the last one of a run that was killed while it wrote."""
    log(tmp_path, '1', (10, 20))
    file = tmp_path / '1/vis_data/scalars.json'
    damaged = ('{"lr": 0.1, "lo', '[1]', '3', '', '\xff', '{"step": "3"}', '{"step": NaN}', '{"step": null}')
    entries = curves._logged(file, steps=1)
    file.write_bytes('\n'.join([*damaged, file.read_text(), *damaged]).encode('latin-1'))
    assert len(entries) == 3 and curves._logged(file, steps=1) == entries


def test_metrics_that_are_no_scores():
    none = [('coco/bbox_mAP', -1), ('boxes/coco/segm_mAP', -1.0), ('pose/coco/AR', -1.0), ('mIoU', float('nan'))]
    scores = [('coco/bbox_mAP', 0.0), ('gain', -1.0), ('coco/AP .5', 0.3), ('table', '-1')]
    assert [logs._is_unmeasured(*metric) for metric in none + scores] == [True] * 4 + [False] * 4


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
    result = objects([[0, 0, 5, 5]] * 4, [0, 1, 1, 0], scores=np.array([0.35, 0.35, 0.6, 0.25]))

    def texts(task, *least):
        return sorted(item.text for item in drawing_of(task, result, *least).objects)

    assert texts(BALLS) == ['ball 0.35', 'box 0.35', 'box 0.60'] and DEFAULT_SCORE == 0.3
    task = {**BALLS, 'thresholds': [None, 0.5]}
    assert texts(task) == ['ball 0.35', 'box 0.60']
    assert texts(task, 0.2) == ['ball 0.25', 'ball 0.35', 'box 0.35', 'box 0.60']  # given by the user


# --- the page ---


def hook_of(samples, meta, **speeds):
    """Returns a hook with the evaluation of some boxes."""
    from mmdet.evaluation import CocoMetric
    from mmengine.evaluator import Evaluator

    hook = EvaluationHook(adapter.Adapter())
    dataset = SimpleNamespace(metainfo=meta)
    evaluator = Evaluator([CocoMetric()])
    evaluator.dataset_meta = meta
    loop = SimpleNamespace(evaluator=evaluator, dataloader=SimpleNamespace(dataset=dataset))
    hook.before_val_epoch(SimpleNamespace(val_loop=loop))
    evaluator.process(samples)
    metrics = evaluator.evaluate(len(samples))
    hook._end(SimpleNamespace(_train_loop=None, hooks=[]), 'validation', len(samples), metrics)
    hook.speeds = speeds
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
    predicted = ([[10, 10, 30, 30], [60, 60, 90, 90], [0, 0, 9, 9]], [0, 1, 2], [0.9, 0.8, 0.2])
    sample = measured.objects(predicted, ([[10, 10, 30, 30], [40, 10, 60, 30]], [0, 2]), path=str(path))
    log(folder, '1', (10, 20, 30))
    checkpoint = folder / f'{HOSTILE.replace("/", "")}.pth'
    checkpoint.touch()
    (folder / 'last_checkpoint').write_text(str(checkpoint))
    said = []
    hook = hook_of([sample], {'classes': names}, training=3.0)
    page = report.write_report(runner_of(folder), hook, f'{HOSTILE}.py', say=said.append)
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
        ink, ground = (np.array(color) @ [0.299, 0.587, 0.114] for color in colors)
        assert (ink < 60 and ground > 200) if scheme == 'light' else (ink > 200 and ground < 60)
        drawn = page.run("getComputedStyle(document.querySelector('svg text')).fill.match(/\\d+/g).map(Number)")
        assert drawn == colors[0]  # text of plots
        problems = [
            event['params'] for event in page.events if event['method'] in ('Log.entryAdded', 'Runtime.exceptionThrown')
        ]
        assert not problems


def test_what_fails_after_a_training_is_a_warning(cfg, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logs, 'print_log', lambda text, logger, level: said.append((level, text)))

    def fail(*args, **options):
        raise MemoryError('no room\nfor it \x1b')

    monkeypatch.setattr(report, 'write_report', fail)
    train(begin(cfg(default_scope='mmdet', train_cfg__max_iters=1)))
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
    config = cfg(
        default_scope='mmdet', train_cfg__max_iters=5, default_hooks=saving, custom_hooks=[{'type': 'InterruptingHook'}]
    )
    with pytest.raises(KeyboardInterrupt):
        train(begin(config))
    page = (tmp_path / 'report.html').read_text()
    assert 'The training was interrupted.' in page and '2 of 5 iterations' in page and '--resume' in page
    (best,) = tmp_path.glob('best_score_iter_*.pth')
    assert best.name in page


def test_a_network_of_an_unknown_task_has_a_page(cfg, tmp_path):
    """With the numbers of its metric, and why there are no results by class."""
    train(begin(cfg(default_scope='mmdet', train_cfg__max_iters=1)))
    page = (tmp_path / 'report.html').read_text()
    assert 'images are left out: no metric of the config is one that tells what it has compared' in page
    stored = json.loads((tmp_path / 'report.json').read_text())['tasks']['']
    assert stored['metrics'] == {} and 'score' in stored['other_metrics'] and stored['thresholds'] == []
