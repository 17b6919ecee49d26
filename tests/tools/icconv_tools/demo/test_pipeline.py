import json

import cv2
import pytest
from mmengine.config import Config
from pretended_tools import SEPARATE, run
from skips import EXPORTS

from icconv_tools.demo.tasks import NECKS
from icconv_tools.demo.tasks import SEPARATE as ALONE

REPORT_KEYS = ['task', 'config', 'backbone_file', 'metric', 'value', 'threshold', 'seconds', 'backbone_from', 'network']
VALUES = [0.81, 0.6123, 0.725, 0.45, 0.45]
THRESHOLDS = [0.6, 0.5, 0.6, 0.4, None]


def _report(tmp_path):
    return json.loads((tmp_path / 'work/report.json').read_text())


def test_one_network_is_evaluated_for_each_task(home, data, tmp_path):
    """By default one network is trained: once; tested once, and once more at three scales."""
    results, printed = run(data, tmp_path, tasks=['all'])
    report = _report(tmp_path)
    assert [list(row) for row in report] == [REPORT_KEYS] * 5
    assert [result.value for result in results] == [row['value'] for row in report] == VALUES
    assert [result.threshold for result in results] == THRESHOLDS
    assert [result.task for result in results][::4] == ['one network: boxes', 'one network: bottom-up pose, 3 scales']
    assert [result.seconds is not None for result in results] == [True, False, False, False, False]
    assert {row['network'] for row in report} == {'all'}
    assert printed.count(': train: done') == 1 and printed.count(': test: done') == 2
    again = (tmp_path / 'work/all/retest1.log').read_text()
    assert 'test_scales=[1.25,1,0.75]' in again
    files = ['0.metric.outfile_prefix', '1.metric.output_dir', '2.metric.outfile_prefix']
    assert [again.count(f'test_evaluator.{file}=None') for file in files] == [1, 1, 1]  # the first test writes them
    assert '--cfg-options' not in (tmp_path / 'work/all/test.log').read_text()
    cfg = Config.fromfile(tmp_path / 'work/all/config.py', import_custom_modules=False)
    assert 'data/miniature' not in cfg.pretty_text.replace(str(data), '')
    assert cv2.imread(str(tmp_path / 'work/demo.jpg')).shape[1] == 2 * 384  # truth and prediction
    assert 'four networks' not in printed
    exported = '1.0 MiB, 20.0 ms an image where PyTorch takes 40.0; largest differences: boxes 1e-05'
    page = (tmp_path / 'work/report.html').read_text()
    if EXPORTS:
        assert exported in printed and exported in page and exported in (tmp_path / 'work/report.md').read_text()
    else:
        assert 'the network as one file: needs torch 2.6' in printed
    assert 'one network: semantic segmentation' in page and 'data:image/jpeg;base64,' in page


def test_networks_for_single_tasks(home, data, tmp_path):
    results, printed = run(data, tmp_path, tasks=SEPARATE)
    report = _report(tmp_path)
    assert [row['value'] for row in report] == VALUES
    assert [row['threshold'] for row in report] == THRESHOLDS
    assert {row['backbone_file'] for row in report} == {'configs/_base_/backbones/ic_resnet18.py'}
    assert all((home / row['config']).is_file() for row in report)
    assert [bool(row['seconds']) for row in report] == [True, True, True, True, False]  # of the tests at once
    assert all(result.passed for result in results)
    assert [row['backbone_from'] for row in report] == [None, *['detection'] * 4]
    assert 'bottom-up pose: started with the backbone of detection' in printed
    first = str(tmp_path / 'work/detection/train/iter_20.pth')
    start = Config.fromfile(tmp_path / 'work/pose/config.py', import_custom_modules=False).model.backbone.init_cfg
    assert start == {'type': 'Pretrained', 'checkpoint': first, 'prefix': 'backbone.'}
    written = (tmp_path / 'work/report.md').read_text()
    for task, row in zip(ALONE, report):
        assert f'{task.title}: train' in printed  # progress
        line = next(line for line in printed.splitlines() if task.title in line and row['metric'] in line)
        assert f'{row["value"]:.3f}' in line and row['backbone_file'] in line
        assert f'| {task.title} | {row["metric"]} | {row["value"]:.3f} |' in written
    assert 'demo.jpg' in written and cv2.imread(str(tmp_path / 'work/demo.jpg')).ndim == 3
    assert 'Iter(train) [20/20]' in (tmp_path / 'work/detection/train.log').read_text()


def test_what_an_earlier_call_tested_is_compared(home, data, tmp_path):
    """It is no result of this call, and of no use after another training."""
    run(data, tmp_path, tasks=['all'])
    (home / 'tools/metrics.json').write_text('{"coco/bbox_mAP_50": 0.5, "coco/AP .5": 0.6, "mIoU": 62.5}')
    results, printed = run(data, tmp_path, tasks=SEPARATE)
    assert [result.network for result in results] == [*SEPARATE, 'pose']
    assert [row['network'] for row in _report(tmp_path)] == [*SEPARATE, 'pose', *['all'] * 5]
    assert 'of an earlier call: all' in printed and 'four networks' in printed
    assert '| bottom-up pose | OKS AP50 | 0.450 | 0.600 | -0.150 | >= 0.40 |' in (
        (tmp_path / 'work/report.md').read_text()
    )
    for change in ({'seed': 1}, {'backbone': 'pyconv_resnet18'}):
        _, printed = run(data, tmp_path, tasks=['detection'], **change)
        assert 'earlier call' not in printed and {row['network'] for row in _report(tmp_path)} == {'detection'}


@pytest.mark.parametrize(
    ('backbone', 'before', 'title'),
    [('ic_resnet18', 'detection', 'box detection'), ('ic_resnet50_k9', 'all', 'one network: boxes')],
)
def test_neck_adds_its_network(home, data, tmp_path, backbone, before, title):
    """It starts with the backbone of the detector, which is trained before it if the call names other networks."""
    results, printed = run(data, tmp_path, tasks=[before], neck='sepc', backbone=backbone)
    assert (results[0].task, results[-1].task) == (title, 'box detection, SEPC')
    assert results[-1].backbone_from == 'detection'
    assert results[-1].config == 'configs/detection/retinanet_ic-r18_fpn-sepc_miniature.py'
    assert results[-1].value == 0.81
    cfg = Config.fromfile(tmp_path / 'work/detection_sepc/config.py', import_custom_modules=False)
    assert cfg.model.backbone.init_cfg.checkpoint == str(tmp_path / 'work/detection/train/iter_20.pth')
    assert [neck.type for neck in cfg.model.neck] == ['FPN', 'icconv_mm.SEPC']
    factor = 4 if backbone == 'ic_resnet50_k9' else 1
    assert cfg.model.neck[0].in_channels == [factor * width for width in (64, 128, 256, 512)]
    assert cfg.model.neck[1].in_channels == 64
    assert f'{NECKS["sepc"].title}: train' in printed


def test_no_metric_counts_as_zero(home, data, tmp_path):
    """mmdet's evaluator gives no metric at all when nothing was detected."""
    (home / 'tools/metrics.json').write_text(json.dumps({'mIoU': float('nan')}))
    results, printed = run(data, tmp_path, tasks=['all'])
    assert [result.value for result in results] == [0, 0, 0, 0, 0]
    assert printed.count('(missed)') == 4  # the retest has no threshold


def test_results_of_an_earlier_training_do_not_count(home, data, tmp_path):
    run(data, tmp_path, tasks=['instance'])
    (home / 'tools/test.py').write_text('')  # ends well, writes nothing
    results, _ = run(data, tmp_path, tasks=['instance'])
    assert results[0].value == 0
