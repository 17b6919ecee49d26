"""The tools on one network for all tasks, as on any config."""

import json
import sys

import pytest
from workspaces import SUPPORT, short

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpose')
pytest.importorskip('torchjd')
pytest.importorskip('quadprog')
pytestmark = pytest.mark.slow

RECIPE = 'multitask/multitask_ic-r18_fpn_miniature.py'
TASKS = ('instance', 'semantic', 'pose')


@pytest.fixture(scope='module')
def checkpoint(workspace) -> str:
    """After three iterations, validated, with averaged weights, and gradients that are logged and reconciled."""
    averaged = "custom_hooks = [dict(type='EMAHook', momentum=0.5)]\n"
    reconciled = "model = dict(aggregator='UPGrad', log_gradients=True)"
    config = workspace.derive('averaged', RECIPE, averaged + reconciled)
    assert workspace.tool('train', config, '--work-dir', 'runs/joint', *short(3)) is None
    return str(workspace.root / 'runs/joint/iter_3.pth')


def test_training_logs_each_task(workspace, checkpoint):
    lines = workspace.scalars('runs/joint')
    trained = [line for line in lines if 'loss' in line]
    assert len(trained) == 3
    for name in TASKS:
        assert all(line[f'{name}.grad_norm'] > 0 for line in trained)
    assert all(-1 <= line['instance.semantic.grad_cosine'] <= 1 for line in trained)
    assert {'instance.loss_mask', 'semantic.decode.loss_ce', 'pose.loss_kpt'} <= set(trained[0])
    assert {'instance/coco/bbox_mAP_50', 'semantic/mIoU', 'pose/coco/AP .5'} <= set(lines[-1])


@pytest.mark.parametrize('options', [(), ('--tta',), ('--deploy',), ('--show-dir', 'shown_tasks')], ids=str)
def test_test(workspace, checkpoint, options):
    name = '_'.join(options).strip('-') or 'plain'
    command = (workspace.config(RECIPE), checkpoint, '--work-dir', f'runs/test_{name}', *options, *short(3))
    assert workspace.tool('test', *command) is None
    (file,) = (workspace.root / f'runs/test_{name}').glob('*/*.json')
    assert {'semantic/mIoU', 'pose/coco/AP .5'} <= set(json.loads(file.read_text()))
    if '--show-dir' in options:
        assert len(list(workspace.root.glob('**/shown_tasks/*'))) == 4


def test_infer(workspace, checkpoint):
    command = (workspace.config(RECIPE), checkpoint, 'data/miniature/val', '--out-dir', 'predicted', '--batch-size', 2)
    assert workspace.tool('infer', *command) is None
    out = workspace.root / 'predicted'
    assert len(list((out / 'vis').iterdir())) == 4
    for name in TASKS:
        images = json.loads((out / f'images.{name}.json').read_text())
        records = json.loads((out / f'predictions.{name}.json').read_text())
        assert len(images['images']) == 4 and isinstance(records, list)
        assert {record['category_id'] for record in records} <= {entry['id'] for entry in images['categories']}
    assert len(json.loads((out / 'images.semantic.json').read_text())['categories']) == 7


def test_browse(workspace):
    command = (workspace.config(RECIPE), '--not-show', '--count', 3, '--out-dir', 'browsed')
    assert workspace.tool('browse_dataset', *command) is None
    assert len(list((workspace.root / 'browsed').iterdir())) == 3


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            'model.tasks.instance.roi_head.bbox_head.num_classes=5',
            r'instance.roi_head.bbox_head.num_classes is 5, but train_dataloader.dataset has 6 classes: person',
        ),
        (
            'model.tasks.pose.head.num_keypoints=14',
            'num_keypoints is 14, but train_dataloader.dataset has 17 keypoints',
        ),
        ('model.neck.num_outs=5', 'its priors are for 4 levels, but model.neck gives 5 levels of 64, 64, 64, 64, 64'),
        ('model.tasks.semantic.decode_head.in_index=[0,1,2,4]', 'reads level 4, but model.neck gives 4 levels'),
    ],
)
def test_data_and_heads_that_differ(workspace, change, message):
    error = workspace.tool('train', workspace.config(RECIPE), '--work-dir', 'runs/bad', *short(1), change)
    assert error is not None and message in error and 'Traceback' not in error


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            'd = _base_.train_dataloader.dataset.datasets\n'
            'train_dataloader = dict(dataset=dict(datasets=dict(_delete_=True, instance=d.instance)))',
            'model.tasks.semantic: train_dataloader.dataset has no annotations for it, only for instance',
        ),
        (
            't = _base_.model.tasks\nmodel = dict(loss_weights=None, tasks=dict(_delete_=True, instance=t.instance))',
            "annotations for 'semantic', but model.tasks has no such task: instance",
        ),
    ],
    ids=['head without data', 'data without head'],
)
def test_heads_and_data_of_other_tasks(workspace, change, message):
    error = workspace.tool('train', workspace.derive('bad', RECIPE, change), '--work-dir', 'runs/bad', *short(1))
    assert message in error


def test_two_heads_of_one_name(workspace):
    config = workspace.derive('twice', RECIPE, 'model = dict(tasks=dict(pose=dict(), pose=dict()))')
    error = workspace.tool('train', config)
    assert 'keyword argument repeated: pose' in error and 'twice.py cannot be read' in error and '\n' not in error


# --- processes


def test_two_processes_with_different_tasks_equal_one(workspace):

    torchrun = (sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2)
    run = workspace.run(*torchrun, SUPPORT / 'multitask_ranks.py', workspace.config(RECIPE))
    assert run.stdout.count('equal') == 2
