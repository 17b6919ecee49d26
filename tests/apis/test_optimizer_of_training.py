"""An optimizer that cannot be built is a wrong config, not a fault in the training."""

import pytest
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from icconv_mm.apis.training import build_optimizer
from icconv_mm.errors import InputError


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, inputs):
        return self.conv(inputs)


def _runner(tmp_path, optimizer: dict) -> Runner:
    return Runner(
        Model(),
        work_dir=str(tmp_path),
        train_dataloader={'dataset': {'type': 'never built'}},
        train_cfg={'by_epoch': False, 'max_iters': 1},
        optim_wrapper={'type': 'OptimWrapper', 'optimizer': optimizer},
        experiment_name=f'{tmp_path.name}_{optimizer["lr"]}',
    )


@pytest.mark.parametrize(('kind', 'lr'), [('SGD', 'abc'), ('SGD', -1), ('SDG', 0.1)])
def test_an_optimizer_that_cannot_be_built(kind, lr, tmp_path):
    with pytest.raises(InputError, match=r'^c\.py: optim_wrapper: '):
        build_optimizer(_runner(tmp_path, {'type': kind, 'lr': lr}), 'c.py')


def test_the_training_takes_the_one_that_was_built(tmp_path):
    runner = _runner(tmp_path, {'type': 'SGD', 'lr': 0.1})
    build_optimizer(runner, 'c.py')
    built = runner.optim_wrapper
    assert isinstance(built, OptimWrapper) and runner.build_optim_wrapper(built) is built
