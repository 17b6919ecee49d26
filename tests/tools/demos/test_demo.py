import dataclasses
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from io import StringIO

import cv2
import numpy as np
import pytest
from demos import DemoOptions, run_demo
from demos.configs import backbone_file, prepare_config, use_backbone
from demos.own_data import write_own_data_config
from demos.process import python, run_tool
from demos.report import Result, print_table, write_reports
from demos.run import read_metric
from demos.tasks import JOINT, NECKS, TASKS
from mmengine.config import Config
from rich.console import Console

from icconv_mm.datasets.miniature import MiniatureOptions, ensure_miniature
from icconv_mm.tasks.multitask.checks import check_model

DRAWING = MiniatureOptions(train=8, val=4, size=64)
REPORT_KEYS = ['task', 'config', 'backbone_file', 'metric', 'value', 'threshold', 'seconds', 'backbone_from']

# They write what the real tools write, at once. The value of every metric comes from a file beside them.
FAKE_TRAIN = """
    import sys
    from pathlib import Path
    work = Path(sys.argv[sys.argv.index('--work-dir') + 1])
    work.mkdir(parents=True)
    for i in (10, 20):
        print(f'11/20 08:00:00 - mmengine - INFO - Iter(train) [{i}/20]  lr: 1e-3  loss: {5 / i:.4f}  loss_cls: 0.1')
    (work / 'iter_20.pth').touch()
    (work / 'last_checkpoint').write_text(str(work / 'iter_20.pth'))
"""
FAKE_TEST = """
    import json, sys
    from pathlib import Path
    import cv2, numpy as np
    assert Path(sys.argv[2]).is_file()
    work = Path(sys.argv[sys.argv.index('--work-dir') + 1])
    (work / 'now').mkdir(parents=True)
    (work / 'now/now.json').write_text((Path(__file__).parent / 'metrics.json').read_text())
    labels = work.parent / 'labels'
    labels.mkdir(exist_ok=True)
    (work.parent / 'results.keypoints.json').write_text('[]')
    for i in range(1, 5):
        cv2.imwrite(str(labels / f'{i:06d}.png'), np.full((64, 64), i, np.uint8))
"""
GOOD = {'coco/bbox_mAP_50': 0.81, 'coco/segm_mAP_50': 0.61234, 'mIoU': 72.5, 'coco/AP .5': 0.45}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'miniature'
    ensure_miniature(root, DRAWING)
    return root


@pytest.fixture
def home(tmp_path, repo):
    """A checkout whose tools only pretend."""
    folder = tmp_path / 'home'
    (folder / 'tools').mkdir(parents=True)
    (folder / 'configs').symlink_to(repo / 'configs')
    (folder / 'tools/train.py').write_text(textwrap.dedent(FAKE_TRAIN))
    (folder / 'tools/test.py').write_text(textwrap.dedent(FAKE_TEST))
    (folder / 'tools/metrics.json').write_text(json.dumps(GOOD))
    shutil.copy(repo / 'tools/demo.py', folder / 'tools/demo.py')
    return folder


def _run(home, data, tmp_path, **options):
    out = StringIO()
    options = DemoOptions(home=home, data=data, work_dir=tmp_path / 'work', drawing=DRAWING, **options)
    return run_demo(options, Console(file=out, width=150)), out.getvalue()


def test_course_and_report(home, data, tmp_path):
    results, printed = _run(home, data, tmp_path)
    report = json.loads((tmp_path / 'work/report.json').read_text())
    assert [list(each) for each in report] == [REPORT_KEYS] * 5
    assert [each['value'] for each in report] == [0.81, 0.6123, 0.725, 0.45, 0.45]
    assert [each['threshold'] for each in report] == [0.6, 0.5, 0.6, 0.4, None]
    assert {each['backbone_file'] for each in report} == {'configs/_base_/backbones/ic_resnet18.py'}
    assert all((home / each['config']).is_file() and each['seconds'] > 0 for each in report)
    assert all(result.passed for result in results)
    assert [each['backbone_from'] for each in report] == [None, *['detection'] * 4]
    assert 'bottom-up pose: started with the backbone of detection' in printed
    first = str(tmp_path / 'work/detection/train/iter_20.pth')
    start = Config.fromfile(tmp_path / 'work/pose/config.py', import_custom_modules=False).model.backbone.init_cfg
    assert start == {'type': 'Pretrained', 'checkpoint': first, 'prefix': 'backbone.'}
    for task, row in zip(TASKS, report):
        assert f'{task.title}: train' in printed  # progress
        line = next(line for line in printed.splitlines() if task.title in line and row['metric'] in line)
        assert f'{row["value"]:.3f}' in line and row['backbone_file'] in line
        assert (
            f'| {task.title} | {task.kind.metric} | {row["value"]:.3f} |' in (tmp_path / 'work/report.md').read_text()
        )
    assert 'demo.jpg' in (tmp_path / 'work/report.md').read_text()
    assert cv2.imread(str(tmp_path / 'work/demo.jpg')).ndim == 3
    assert 'Iter(train) [20/20]' in (tmp_path / 'work/detection/train.log').read_text()


def test_one_network_is_judged_for_each_task(home, data, tmp_path):
    """Trained once, tested once, and once more at three scales; each scene is drawn once."""
    prefixes = {
        'coco/bbox_mAP_50': 'instance',
        'coco/segm_mAP_50': 'instance',
        'mIoU': 'semantic',
        'coco/AP .5': 'pose',
    }
    metrics = {f'{prefixes[key]}/{key}': value for key, value in GOOD.items()}
    (home / 'tools/metrics.json').write_text(json.dumps(metrics))
    with (home / 'tools/test.py').open('a') as file:
        file.write('\nprint(sys.argv)\n')
    results, printed = _run(home, data, tmp_path, tasks=['joint'])
    assert [each.value for each in results] == [0.81, 0.6123, 0.725, 0.45, 0.45]
    assert [each.threshold for each in results] == [0.6, 0.5, 0.6, 0.4, None]
    assert [each.task for each in results][::4] == ['one network: boxes', 'one network: bottom-up pose, 3 scales']
    assert printed.count(': train: done') == 1 and printed.count(': test: done') == 2
    again = (tmp_path / 'work/joint/retest1.log').read_text()
    assert 'test_scales=[2,1,0.5]' in again and 'test_evaluator.2.metric.outfile_prefix=None' in again
    cfg = Config.fromfile(tmp_path / 'work/joint/config.py', import_custom_modules=False)
    assert 'data/miniature' not in cfg.pretty_text.replace(str(data), '')
    assert cfg.test_evaluator[1].metric.output_dir == f'{tmp_path}/work/joint/labels'
    assert cfg.test_evaluator[2].task == 'pose' and cfg.test_evaluator[2].metric.outfile_prefix.endswith('results')
    picture = cv2.imread(str(tmp_path / 'work/demo.jpg'))
    assert picture.shape[1] == 2 * 288  # truth and prediction


def test_one_network_beside_the_others(home, data, tmp_path):
    results, _ = _run(home, data, tmp_path, tasks=['semantic', 'joint'])
    assert len(results) == 1 + 4 + 1
    assert (tmp_path / 'work/demo.jpg').is_file() and (tmp_path / 'work/joint.jpg').is_file()


def test_thresholds_of_one_network_are_those_of_four():
    assert [part[3] for part in JOINT.parts] == [task.threshold for task in TASKS]


@pytest.mark.parametrize('backbone', ['ic_resnet18', 'ic_resnet50_k9'])
def test_neck_adds_its_task(home, data, tmp_path, backbone):
    results, printed = _run(home, data, tmp_path, tasks=['detection'], neck='sepc', backbone=backbone)
    assert [each.task for each in results] == ['box detection', NECKS['sepc'].title]
    assert results[1].config == 'configs/detection/retinanet_ic-r18_fpn-sepc_miniature.py' and results[1].value == 0.81
    cfg = Config.fromfile(tmp_path / 'work/detection_sepc/config.py', import_custom_modules=False)
    assert [neck.type for neck in cfg.model.neck] == ['FPN', 'icconv_mm.SEPC']
    factor = 4 if backbone == 'ic_resnet50_k9' else 1
    assert cfg.model.neck[0].in_channels == [factor * width for width in (64, 128, 256, 512)]
    assert cfg.model.neck[1].in_channels == 64
    assert 'box detection, SEPC: train' in printed


def test_retest_is_reported_without_a_threshold(home, data, tmp_path, monkeypatch):
    """The checkpoint is tested again with changed options; the predictions of the first test stay."""
    retests = ((' at 3 scales', ('test_dataloader.dataset.pipeline.1.scales=[2,1,0.5]',)),)
    monkeypatch.setattr('demos.run.TASKS', (dataclasses.replace(TASKS[2], retests=retests),))
    with (home / 'tools/test.py').open('a') as file:
        file.write('\nprint(sys.argv)\n')
    results, _ = _run(home, data, tmp_path, tasks=['semantic'])
    assert [(each.task, each.threshold) for each in results] == [
        ('semantic segmentation', 0.6),
        ('semantic segmentation at 3 scales', None),
    ]
    first, second = ((tmp_path / f'work/semantic/{name}.log').read_text() for name in ('test', 'retest1'))
    assert '--cfg-options' not in first
    assert 'scales=[2,1,0.5]' in second and 'test_evaluator.output_dir=None' in second
    assert Result('t', 'c', 'b', 'm', 0.0, None, 1).passed


def _demo(home, data, monkeypatch, *arguments):
    """The exit status of tools/demo.py, on the tiny dataset."""
    monkeypatch.chdir(home.parent)
    monkeypatch.setattr('demos.run.ensure_miniature', lambda root, *_: ensure_miniature(root, DRAWING))
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--data', str(data), *arguments])
    before = signal.getsignal(signal.SIGTERM)
    try:
        return runpy.run_path(str(home / 'tools/demo.py'))['main']()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ('task', 'metrics', 'status'),
    [
        ('detection', {'coco/bbox_mAP_50': 0.6}, 0),
        ('detection', {'coco/bbox_mAP_50': 0.599}, 1),
        ('instance', {'coco/bbox_mAP_50': 1.0, 'coco/segm_mAP_50': 0.49}, 1),
        ('semantic', {'mIoU': 60.0}, 0),
        ('semantic', {'mIoU': 59.9}, 1),
    ],
)
def test_exit_status(home, data, monkeypatch, task, metrics, status):
    monkeypatch.setattr('demos.run.draw_picture', lambda *_: None)
    (home / 'tools/metrics.json').write_text(json.dumps(metrics))
    assert _demo(home, data, monkeypatch, '--tasks', task) == status
    (row,) = json.loads((home.parent / 'work_dirs/demo/report.json').read_text())
    assert (row['value'] < row['threshold']) == bool(status)


def test_exactly_the_threshold_passes():
    assert Result('t', 'c', 'b', 'm', 0.6, 0.6, 1).passed
    assert not Result('t', 'c', 'b', 'm', 0.5999, 0.6, 1).passed


def test_no_metric_counts_as_zero(home, data, tmp_path):
    """mmdet's evaluator gives no metric at all when nothing was detected."""
    (home / 'tools/metrics.json').write_text(json.dumps({'mIoU': float('nan')}))
    results, printed = _run(home, data, tmp_path)
    assert [result.value for result in results] == [0, 0, 0, 0, 0]
    assert printed.count('(missed)') == 4  # the retest has no threshold


def test_results_of_an_earlier_demo_do_not_count(home, data, tmp_path):
    _run(home, data, tmp_path, tasks=['instance'])
    (home / 'tools/test.py').write_text('')  # ends well, writes nothing
    results, _ = _run(home, data, tmp_path, tasks=['instance'])
    assert results[0].value == 0


def test_read_metric_takes_the_latest_test(tmp_path):
    for name, value in (('b', 0.1), ('a', 0.2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f'{name}.json').write_text(json.dumps({'m': value}))
        time.sleep(0.02)
    assert read_metric(tmp_path, 'm') == 0.2
    assert read_metric(tmp_path / 'missing', 'm') == 0


def _refused(*arguments):
    with pytest.raises(SystemExit) as end:
        _demo(*arguments)
    return str(end.value)


def test_failing_tool_is_named_with_its_last_words(home, data, monkeypatch):
    (home / 'tools/test.py').write_text('import sys\nprint("the last words")\nsys.exit(3)')
    error = _refused(home, data, monkeypatch)
    assert re.match(r'error: 1/4 box detection: test failed with exit status 3(?s:.*)the last words', error)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--backbone', 'vgg16'], r'--backbone: no file .*vgg16.py; there are: .*ic_resnet18'),
        (['--neck', 'nothing'], r'--neck: no neck nothing; there are: sepc'),
        (['--tasks', 'detection', 'depth'], r'--tasks: no task depth; there are: detection, instance, semantic'),
        (['--data', __file__], r'exists and is not a miniature dataset'),
    ],
)
def test_bad_input(home, data, monkeypatch, arguments, message):
    error = _refused(home, data, monkeypatch, *arguments)
    assert re.match(f'error: .*{message}', error) and '\n' not in error


def test_missing_cuda_is_said_before_anything_starts(home, data, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    error = _refused(home, data, monkeypatch, '--device', 'cuda')
    assert error == 'error: --device cuda: torch finds no CUDA device; use --device cpu'


# ------------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize('task', TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize('backbone', ['ic_resnet18', 'ic_resnet50_k9', 'pyconv_resnet18', 'pyconv_hgresnet50'])
def test_prepared_config(task, backbone, repo, tmp_path):
    """Backbone, data folder and seed are exchanged, everywhere, and nothing else."""
    data = tmp_path / 'elsewhere'
    path = prepare_config(
        task, tmp_path / task.name, home=repo, backbone=backbone_file(repo, backbone), data=data, seed=7
    )
    cfg = Config.fromfile(path, import_custom_modules=False)
    expected = Config.fromfile(repo / f'configs/_base_/backbones/{backbone}.py').backbone
    assert cfg.backbone == expected and dict(cfg.model.backbone) == cfg.model.backbone | expected
    channels = [64 * 2**i * (4 if '50' in backbone else 1) for i in range(4)]
    assert cfg.model.neck.in_channels == channels[: len(cfg.model.backbone.get('out_indices', channels))]
    assert 'data/miniature' not in cfg.pretty_text
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == f'{tmp_path}/elsewhere/'
    assert cfg.randomness.seed == 7
    original = Config.fromfile(repo / 'configs' / task.config, import_custom_modules=False)
    assert cfg.optim_wrapper == original.optim_wrapper and cfg.param_scheduler == original.param_scheduler
    if backbone == 'ic_resnet18':
        assert cfg.model == original.model


def test_fine_tuning(repo, tmp_path):
    """A task that starts with a trained backbone may be shorter; its schedule keeps its shape."""
    task = next(task for task in TASKS if task.fine_tuning)
    backbone = backbone_file(repo, 'ic_resnet18')
    common = {'home': repo, 'backbone': backbone, 'data': tmp_path, 'seed': 0}
    scratch, tuned = (
        Config.fromfile(prepare_config(task, tmp_path / name, **common, **start), import_custom_modules=False)
        for name, start in (('scratch', {}), ('tuned', {'start': tmp_path / 'detector.pth'}))
    )
    assert 'init_cfg' not in scratch.model.backbone
    assert tuned.model.backbone.init_cfg.checkpoint == str(tmp_path / 'detector.pth')
    assert tuned.train_cfg.max_iters == task.fine_tuning < scratch.train_cfg.max_iters
    assert tuned.default_hooks.checkpoint.interval == tuned.param_scheduler[-1].end == task.fine_tuning
    factor = task.fine_tuning / scratch.train_cfg.max_iters
    for short, whole in zip(tuned.param_scheduler, scratch.param_scheduler, strict=True):
        assert short.end == pytest.approx(factor * whole.end, abs=0.5) and short.type == whole.type


@pytest.mark.parametrize(
    ('own', 'channels'), [({}, 2048), ({'out_indices': (2,)}, 1024), ({'out_indices': (3,)}, 2048)]
)
def test_backbone_of_a_model_without_neck(own, channels):
    """What the task sets on top of the backbone file stays, and the head follows the last output."""
    small = {'type': 'icconv_mm.ICResNet', 'depth': 18, 'pattern': 'geometric_d4'}
    cfg = Config({'backbone': small, 'model': {'backbone': small | own, 'head': {'in_channels': 256}}})
    large = {'type': 'icconv_mm.ICResNet', 'depth': 50, 'pattern': 'dense'}
    use_backbone(cfg, large)
    assert cfg.model.backbone == large | own
    assert cfg.model.head.in_channels == channels


def test_backbone_of_a_segmenter_without_neck():
    """Every head follows the stage that it reads."""
    small = {'type': 'icconv_mm.PyConvResNet', 'depth': 18}
    heads = {'decode_head': {'in_channels': 512, 'in_index': 3}, 'auxiliary_head': {'in_channels': 256, 'in_index': 2}}
    cfg = Config({'backbone': small, 'model': {'backbone': small | {'output_stride': 8}, **heads}})
    use_backbone(cfg, {'type': 'icconv_mm.PyConvHGResNet', 'depth': 50})
    assert cfg.model.backbone == {'type': 'icconv_mm.PyConvHGResNet', 'depth': 50, 'output_stride': 8}
    assert (cfg.model.decode_head.in_channels, cfg.model.auxiliary_head.in_channels) == (2048, 1024)


def test_every_task_uses_the_same_backbone_file(repo):
    backbone = Config.fromfile(repo / 'configs/_base_/backbones/ic_resnet18.py').backbone
    for task in TASKS:
        text = (repo / 'configs' / task.config).read_text()
        assert "'../_base_/backbones/ic_resnet18.py'" in text and '**_base_.backbone' in text
        model = Config.fromfile(repo / 'configs' / task.config, import_custom_modules=False).model
        assert dict(model.backbone) == model.backbone | backbone  # a task may set more on top


def _own(repo, folder, data, **changes):
    """The file that the demo writes, filled in for the tiny dataset."""
    text = write_own_data_config(repo, folder).read_text().replace('path/to/your/data/', f'{data}/')
    text = text.replace("classes = ('person', 'ball') ", "classes = ('person', 'ball', 'box', 'cone', 'star', 'ring') ")
    text = text.replace(
        "'background', 'person', 'ball')", "'background', 'person', 'ball', 'box', 'cone', 'star', 'ring')"
    )
    for name, value in changes.items():
        text = re.sub(rf'^{name} = .*$', f'{name} = {value}', text, flags=re.MULTILINE)
    path = folder / 'filled.py'
    path.write_text(text)
    return Config.fromfile(path)


@pytest.mark.parametrize(
    ('changes', 'kept'),
    [
        ({}, ['instance', 'semantic', 'pose']),
        ({'people': None}, ['instance', 'semantic']),
        ({'instances': None, 'label_maps': None}, ['pose']),
    ],
)
def test_own_data_config(repo, data, tmp_path, changes, kept):
    """Every task that has labels is trained and judged, on what the file names; the others are left out."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    pytest.importorskip('mmpose')
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import DATASETS, METRICS, MODELS, init_default_scope

    cfg = _own(repo, tmp_path, data, **changes)
    init_default_scope('mmengine')
    model = MODELS.build(cfg.model)
    train, val = (DATASETS.build(cfg[f'{phase}_dataloader'].dataset) for phase in ('train', 'val'))
    assert list(model.tasks) == list(train.metainfo) == list(val.metainfo) == kept and len(train) == 8
    check_model(model, train, 'train', training=True)
    batch = pseudo_collate([train[i] for i in range(2)])
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    assert {key.split('.')[0] for key in losses} == set(kept)
    assert [METRICS.build(metric).task for metric in cfg.val_evaluator] == kept


def test_own_data_config_is_not_overwritten(repo, tmp_path):
    path = write_own_data_config(repo, tmp_path)
    path.write_text('filled in')
    assert write_own_data_config(repo, tmp_path).read_text() == 'filled in'


# ----------------------------------------------------------------------------------------------------------- processes


def test_progress_lines_and_bar(tmp_path):
    script = tmp_path / 'tool.py'
    script.write_text(
        "import time\nfor i in range(1, 4):\n    print(f'Iter(train) [ {i}/3]  loss: {1 / i:.4f}  loss_a: 9')\n"
        "print('Epoch(val) [1][20/40]    eta: 0:00:01')\nprint('free text')"
    )
    for terminal in (False, True):
        out = StringIO()
        console = Console(file=out, force_terminal=terminal, width=120)
        run_tool(python(script), tmp_path / 'log', 'the title', console, {})
        assert 'the title' in out.getvalue()
        assert ('50%' in out.getvalue()) == terminal
        assert (tmp_path / 'log').read_text().endswith('free text\n')


def test_lines_come_every_ten_seconds(tmp_path, monkeypatch):
    times = iter(range(0, 1000, 4))
    monkeypatch.setattr('demos.process.time.monotonic', lambda: next(times))
    script = tmp_path / 'tool.py'
    script.write_text("for i in range(1, 8):\n    print(f'Iter(train) [{i}/7]  loss: {i}.25')")
    out = StringIO()
    run_tool(python(script), tmp_path / 'log', 'x', Console(file=out, width=80), {})
    assert out.getvalue().splitlines() == [
        'x: starting',
        'x: 3/7  loss 3.250',
        'x: 6/7  loss 6.250',
        'x: done in 32 s',
    ]


def test_environment_reaches_the_tool(tmp_path):
    script = tmp_path / 'tool.py'
    script.write_text("import os\nprint(repr(os.environ['CUDA_VISIBLE_DEVICES']))")
    run_tool(python(script), tmp_path / 'log', 'x', Console(file=StringIO()), {'CUDA_VISIBLE_DEVICES': ''})
    assert (tmp_path / 'log').read_text() == "''\n"


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_ends_the_running_tool(repo, home, data, tmp_path, number, status):
    """Ctrl-C or a terminated demo leaves no training behind."""
    pid = tmp_path / 'pid'
    (home / 'tools/train.py').write_text(
        f'import os, time\nopen({str(pid)!r} + "x", "w").write(str(os.getpid()))\n'
        f'os.rename({str(pid)!r} + "x", {str(pid)!r})\ntime.sleep(60)'
    )
    script = (
        f'import runpy, signal, sys\n'
        f'sys.path.insert(0, {str(repo / "tools")!r})\n'
        f'import demos.run as run\n'
        f'signal.signal(signal.SIGINT, signal.default_int_handler)\n'  # a shell's background jobs ignore it
        f'run.ensure_miniature = lambda *_: False\n'
        f'sys.argv = ["demo.py", "--data", {str(data)!r}, "--work-dir", {str(tmp_path / "work")!r}]\n'
        f'sys.exit(runpy.run_path({str(home / "tools/demo.py")!r})["main"]())'
    )
    demo = subprocess.Popen([sys.executable, '-c', script], stderr=subprocess.PIPE, text=True)
    while not pid.exists():
        assert demo.poll() is None, demo.stderr.read()
        time.sleep(0.1)
    demo.send_signal(number)
    _, error = demo.communicate(timeout=30)
    assert demo.returncode == status
    assert 'Traceback' not in error
    assert ('interrupted' in error) == (number == signal.SIGINT)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


# ------------------------------------------------------------------------------------------------------------- reports


def test_table_names_what_was_missed(tmp_path):
    out = StringIO()
    results = [Result('a', 'c.py', 'b.py', 'AP', 0.7, 0.6, 10), Result('d', 'c.py', 'b.py', 'AP', 0.2, 0.6, 20)]
    print_table(results, Console(file=out, width=120))
    lines = out.getvalue().splitlines()
    assert [('missed' in line) for line in lines if 'b.py' in line] == [False, True]
    write_reports(results, tmp_path / 'new')
    assert (tmp_path / 'new/report.md').read_text().splitlines()[
        -1
    ] == '| d | AP | 0.200 (missed) | >= 0.60 | 20 | b.py |'


def test_picture_shows_the_predictions(home, data, tmp_path):
    """The right half of a pair is drawn from what the evaluator wrote; without predictions it is the bare picture."""
    from demos.picture import draw_picture

    detection = TASKS[0]
    results = tmp_path / 'results.bbox.json'
    pictures = []
    truth = json.loads((data / 'annotations/instances_val.json').read_text())['annotations']
    for score in (0.9, 0.1):  # confident or not
        found = [{'image_id': i, 'bbox': [8, 8, 40, 40], 'category_id': 2, 'score': score} for i in range(1, 5)]
        results.write_text(json.dumps(found))
        draw_picture({detection: results}, data, tmp_path / 'p.jpg')
        pictures.append(cv2.imread(str(tmp_path / 'p.jpg')).astype(int))
    difference = np.abs(pictures[0] - pictures[1]).sum(axis=(0, 2)) > 2000
    tiles = difference.reshape(-1, 288).any(axis=1)
    assert truth and not tiles[0::2].any() and tiles[1::2].all()
    assert (tmp_path / 'p.jpg').stat().st_size <= 400_000


# ----------------------------------------------------------------------------------------------------------- in earnest


@pytest.mark.slow
def test_real_tools(repo, data, tmp_path):
    """All tasks through the real tools for two iterations: far below the thresholds, and reported as such."""
    home = tmp_path / 'home'
    shutil.copytree(repo / 'configs', home / 'configs')
    (home / 'tools').symlink_to(repo / 'tools')
    for name, settings, short in (
        ('_base_/schedules/miniature', r'max_iters = \d+', 'max_iters = 2'),
        ('pose/ae_ic-r18_miniature', r'max_iters, warm_up = \d+, \d+', 'max_iters, warm_up = 2, 1'),
    ):
        config = home / f'configs/{name}.py'
        text, replaced = re.subn(settings, short, config.read_text())
        assert replaced == 1, config
        config.write_text(text)
    results, printed = _run(home, data, tmp_path)
    report = json.loads((tmp_path / 'work/report.json').read_text())
    assert len(report) == len(results) == sum(1 + len(task.retests) for task in TASKS)
    assert all(0 <= each['value'] < (each['threshold'] or 1) for each in report)  # a retest has no threshold
    assert printed.count('(missed)') == len(TASKS)
    assert (tmp_path / 'work/demo.jpg').is_file()
    assert (tmp_path / 'work/semantic/labels/000001.png').is_file()
    for task in TASKS:
        log = (tmp_path / 'work' / task.name / 'train.log').read_text()
        assert 'Iter(val)' not in log  # tested once, by the test
