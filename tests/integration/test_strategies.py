"""Runners with strategies, and sharded optimisers, in two processes."""

import sys

import pytest
from workspaces import SUPPORT

pytestmark = pytest.mark.slow
SEMANTIC = 'semantic_segmentation/fpn_ic-r18_miniature.py'


@pytest.mark.parametrize(
    ('recipe', 'ways'),
    [
        (SEMANTIC, 'plain,zero'),  # runners draw the same random numbers; those with strategies draw others
        (SEMANTIC, 'ddp,fsdp'),
        ('detection/faster-rcnn_ic-r18_fpn_miniature.py', 'ddp,fsdp'),
        ('pose/ae_ic-r18_miniature.py', 'ddp,fsdp'),
        ('multitask/multitask_ic-r18_fpn_miniature.py', 'ddp,fsdp'),
    ],
)
def test_training_resuming_and_testing(workspace, recipe, ways):
    torchrun = (sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2)
    run = workspace.run(*torchrun, SUPPORT / 'strategy_ranks.py', workspace.config(recipe), ways)
    assert 'equal' in run.stdout
