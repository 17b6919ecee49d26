"""Training of bottom-up pose: mixed precision, two processes."""

import sys

import pytest
import torch
from workspaces import short

pytestmark = pytest.mark.slow

POSE = 'pose/ae_ic-r18_miniature.py'
# Nothing is random and nothing depends on how images are shared out: no augmentation, a fixed order, no batch norm in
# the head (a stage of stride 4 needs no deconvolution), running statistics in the backbone, plain SGD. The losses are
# means over images, so the mean over two halves of a batch is that of the batch, up to the order of summation.
SAME_IN_EVERY_SPLIT = """
codec = dict(type='icconv_mm.AECodec', input_size=_base_.input_size, heatmap_size=(32, 32), sigma=2)
model = dict(
    backbone=dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,), norm_eval=True),
    neck=None,
    head=dict(in_channels=64, in_index=-1, deconv_out_channels=(), deconv_kernel_sizes=(), decoder=codec,
              keypoint_loss=dict(peak_weight=0.0), tag_loss=dict(push_weight=0.001, pull_weight=0.001), init_cfg=None))
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='icconv_mm.BottomupAffine', input_size=_base_.input_size, rotate_factor=0, scale_factor=(1, 1),
         shift_factor=0),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='icconv_mm.PackMultiScaleInputs')]
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler', shuffle=False), dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0))
param_scheduler = []
custom_imports = dict(imports=['icconv_mm', 'interruptions'], allow_failed_imports=False)
custom_hooks = [dict(type='SaveWeightsHook')]
"""
STEPS = 3


def trained(workspace, name, iterations=STEPS, **options):
    """Weights and losses after training in one process with four images per step."""
    config = workspace.derive(f'pose_{name}', POSE, SAME_IN_EVERY_SPLIT)
    assert workspace.tool('train', config, '--work-dir', f'runs/pose_{name}', *short(iterations, **options)) is None
    return torch.load(workspace.root / f'runs/pose_{name}/rank_0.pth', weights_only=True)


@pytest.fixture(scope='module')
def one(workspace):
    return trained(workspace, 'one_process')


def same(found, expected):
    assert set(found) == set(expected)
    return all(torch.allclose(found[key], value, rtol=1e-4, atol=1e-6) for key, value in expected.items())


def test_amp_trains_like_float32(workspace):
    losses = {}
    for name, options in (('float32', []), ('amp', ['--amp'])):
        args = ('--work-dir', f'runs/pose_{name}', *options, *short(3))
        assert workspace.tool('train', workspace.config(POSE), *args) is None
        losses[name] = [line for line in workspace.scalars(f'runs/pose_{name}') if 'loss' in line]
    assert len(losses['amp']) == 3
    for low, full in zip(losses['amp'], losses['float32']):
        for key in ('loss_kpt', 'loss_push', 'loss_pull'):
            assert low[key] == pytest.approx(full[key], rel=0.05, abs=1e-5), key
    assert losses['amp'][-1]['loss_kpt'] != losses['float32'][-1]['loss_kpt']


def test_two_processes_train_as_one_with_the_doubled_batch(workspace, one):
    config = workspace.derive('pose_two', POSE, SAME_IN_EVERY_SPLIT)
    torchrun = (sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2)
    tool = (workspace.repo / 'tools/train.py', config, '--launcher', 'pytorch', '--work-dir', 'runs/pose_two_train')
    workspace.run(*torchrun, *tool, *short(STEPS, **{'train_dataloader.batch_size': 2}))
    folder = workspace.root / 'runs/pose_two_train'
    first, second = (torch.load(folder / f'rank_{rank}.pth', weights_only=True) for rank in (0, 1))
    assert all(torch.equal(value, second['weights'][key]) for key, value in first['weights'].items())
    assert not torch.allclose(first['losses'], second['losses'], rtol=1e-4)  # of other images
    torch.testing.assert_close((first['losses'] + second['losses']) / 2, one['losses'], rtol=1e-5, atol=0)
    assert same(first['weights'], one['weights'])
