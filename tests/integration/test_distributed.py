"""Two gloo processes train as one with the doubled batch."""

import sys

import pytest
import torch
from workspaces import SEMANTIC, short

pytestmark = pytest.mark.slow

# Batch norm uses its running statistics, as the two halves of a batch have statistics of their own. The order is fixed
# and nothing is random. Losses are means over pixels, and every image has as many: the mean over the two processes is
# the mean over the whole batch, up to the order of summation in float32.
SAME_IN_EVERY_SPLIT = """
model = dict(backbone=dict(norm_eval=True), neck=dict(norm_cfg=dict(type='GN', num_groups=8, _delete_=True)),
             decode_head=dict(norm_cfg=dict(type='GN', num_groups=8, _delete_=True),
                              loss_decode=dict(_delete_=True, type='CrossEntropyLoss')))
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler', shuffle=False), dataset=dict(pipeline=train_pipeline))
custom_imports = dict(imports=['icconv_mm', 'interruptions'], allow_failed_imports=False)
custom_hooks = [dict(type='SaveWeightsHook')]
"""
ITERATIONS = 3


@pytest.fixture(scope='module')
def two(workspace) -> list[dict]:
    """Weights and losses of each of two processes with two images per step."""
    config = workspace.derive('two', SEMANTIC, SAME_IN_EVERY_SPLIT)
    torchrun = (sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2)
    tool = (workspace.repo / 'tools/train.py', config, '--launcher', 'pytorch', '--work-dir', 'runs/two')
    workspace.run(*torchrun, *tool, *short(ITERATIONS, **{'train_dataloader.batch_size': 2}))
    return [torch.load(workspace.root / f'runs/two/rank_{rank}.pth', weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope='module')
def one(workspace) -> dict:
    """The same from one process with four images per step."""
    config = workspace.derive('one', SEMANTIC, SAME_IN_EVERY_SPLIT)
    assert workspace.tool('train', config, '--work-dir', 'runs/one_process', *short(ITERATIONS)) is None
    return torch.load(workspace.root / 'runs/one_process/rank_0.pth', weights_only=True)


def test_ranks_end_with_equal_weights(two):
    assert set(two[0]['weights']) == set(two[1]['weights'])
    for key, value in two[0]['weights'].items():
        assert torch.equal(value, two[1]['weights'][key]), key


def test_ranks_saw_different_pictures(two):
    assert not torch.allclose(two[0]['losses'], two[1]['losses'], rtol=1e-4)


def test_losses_match_one_process_with_the_doubled_batch(two, one):
    """The first loss differs by rounding alone; the later ones also by what AdamW makes of it."""
    mean = (two[0]['losses'] + two[1]['losses']) / 2
    torch.testing.assert_close(mean[0], one['losses'][0], rtol=1e-6, atol=0)
    torch.testing.assert_close(mean, one['losses'], rtol=1e-5, atol=0)


@pytest.mark.usefixtures('two')
def test_one_process_resumes_the_run_of_two(workspace):
    """It sees half the images in an iteration, and says so; counters and schedule go on."""
    options = short(ITERATIONS + 1, **{'train_dataloader.batch_size': 2})
    tool = workspace.repo / 'tools/train.py'
    run = workspace.run(sys.executable, tool, workspace.root / 'two.py', '--work-dir', 'runs/two', '--resume', *options)
    assert 'an iteration of the checkpoint had 4 images, here it has 2' in run.stdout + run.stderr
    assert list(workspace.losses('runs/two')) == [ITERATIONS + 1]
