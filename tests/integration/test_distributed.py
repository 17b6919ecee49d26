"""Two gloo processes train as one with the doubled batch."""

import sys

import pytest
import torch
from workspaces import SEMANTIC, short

pytestmark = pytest.mark.slow

# Nothing is random and nothing depends on how images are shared out: no augmentation, a fixed order, running statistics
# in batch norms, as the two halves of a batch have statistics of their own. Losses are means over pixels or images, and
# every image has as many pixels: the mean over the two processes is the mean over the whole batch, up to the order of
# summation in float32.
SAME_IN_EVERY_SPLIT = """
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler', shuffle=False), dataset=dict(pipeline=train_pipeline))
custom_imports = dict(imports=['icconv_mm', 'interruptions'], allow_failed_imports=False)
custom_hooks = [dict(type='SaveWeightsHook')]
"""
SEGMENTOR = """
model = dict(backbone=dict(norm_eval=True), neck=dict(norm_cfg=dict(type='GN', num_groups=8, _delete_=True)),
             decode_head=dict(norm_cfg=dict(type='GN', num_groups=8, _delete_=True),
                              loss_decode=dict(_delete_=True, type='CrossEntropyLoss')))
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
"""
# a stage of stride 4 needs no deconvolution, which would have batch norms; plain SGD keeps what rounding changes small
POSE = """
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
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0))
param_scheduler = []
"""
CONFIGS = {'segmentor': (SEMANTIC, SEGMENTOR), 'pose': ('pose/ae_ic-r18_miniature.py', POSE)}
ITERATIONS = 3


@pytest.fixture(scope='module', params=CONFIGS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope='module')
def two(workspace, kind) -> list[dict]:
    """Weights and losses of each of two processes with two images per step."""
    base, text = CONFIGS[kind]
    config = workspace.derive(f'two_{kind}', base, text + SAME_IN_EVERY_SPLIT)
    torchrun = (sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2)
    tool = (workspace.repo / 'tools/train.py', config, '--launcher', 'pytorch', '--work-dir', f'runs/two_{kind}')
    workspace.run(*torchrun, *tool, *short(ITERATIONS, **{'train_dataloader.batch_size': 2}))
    return [torch.load(workspace.root / f'runs/two_{kind}/rank_{rank}.pth', weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope='module')
def one(workspace, kind) -> dict:
    """The same from one process with four images per step."""
    base, text = CONFIGS[kind]
    config = workspace.derive(f'one_{kind}', base, text + SAME_IN_EVERY_SPLIT)
    assert workspace.tool('train', config, '--work-dir', f'runs/one_{kind}', *short(ITERATIONS)) is None
    return torch.load(workspace.root / f'runs/one_{kind}/rank_0.pth', weights_only=True)


def test_ranks_end_with_equal_weights(two):
    assert set(two[0]['weights']) == set(two[1]['weights'])
    for key, value in two[0]['weights'].items():
        assert torch.equal(value, two[1]['weights'][key]), key


def test_ranks_saw_different_images(two):
    assert not torch.allclose(two[0]['losses'], two[1]['losses'], rtol=1e-4)


def test_one_process_with_the_doubled_batch_is_the_same(two, one, kind):
    """The first loss differs by rounding alone; the later ones also by what the optimiser makes of it."""
    mean = (two[0]['losses'] + two[1]['losses']) / 2
    torch.testing.assert_close(mean[0], one['losses'][0], rtol=1e-6 if kind == 'segmentor' else 1e-5, atol=0)
    torch.testing.assert_close(mean, one['losses'], rtol=1e-5, atol=0)
    if kind == 'pose':  # AdamW makes much of small differences
        torch.testing.assert_close(two[0]['weights'], one['weights'], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures('two')
def test_one_process_resumes_the_run_of_two(workspace, kind):
    """It sees half the images in an iteration, and says so; counters and schedule go on."""
    options = short(ITERATIONS + 1, **{'train_dataloader.batch_size': 2})
    tool = workspace.repo / 'tools/train.py'
    config, folder = workspace.root / f'two_{kind}.py', f'runs/two_{kind}'
    run = workspace.run(sys.executable, tool, config, '--work-dir', folder, '--resume', *options)
    assert 'an iteration of the checkpoint had 4 images, here it has 2' in run.stdout + run.stderr
    assert list(workspace.losses(folder)) == [ITERATIONS + 1]
