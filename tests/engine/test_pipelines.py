"""The last epochs of a training have their own pipeline, however long it is."""

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner

from icconv_mm.engine.pipelines import LastEpochsHook
from icconv_mm.errors import InputError


@TRANSFORMS.register_module(force=True)
class Give:
    """Replaces the image by a number."""

    def __init__(self, number):
        self.number = number

    def __call__(self, item):
        return {'inputs': torch.full((1,), float(self.number))}


class Images(BaseDataset):
    def load_data_list(self):
        return [{'index': i} for i in range(4)]


class Sees(BaseModel):
    """Remembers what it has seen, by epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, inputs, mode='tensor'):
        self.seen += torch.stack(list(inputs)).flatten().tolist()
        return {'loss': self.weight.square()}


@pytest.mark.parametrize(('epochs', 'last', 'resumed'), [(4, 1, False), (4, 3, False), (4, 4, True), (3, 9, False)])
@pytest.mark.parametrize('workers', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_last_epochs(tmp_path, monkeypatch, epochs, last, resumed, workers):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # it starts several compilers

    def seen(length, resume=False):
        model = Sees()
        loader = dict(
            dataset=Images(pipeline=[dict(type='Give', number=1)]),
            batch_size=2,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=dict(type='DefaultSampler', shuffle=True),
        )
        Runner(
            model=model,
            work_dir=str(tmp_path),
            train_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=length),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
            custom_hooks=[LastEpochsHook(last, [dict(type='Give', number=2)])],
            resume=resume,
            experiment_name=f'{length}_{resume}',
            log_level='ERROR',
        ).train()
        return np.reshape(model.seen, (-1, 4)).mean(1).tolist()

    result = seen(epochs)
    expected = [1.0] * max(0, epochs - last) + [2.0] * min(last, epochs)
    assert result == expected
    if resumed:
        assert seen(epochs + 2, resume=True) == [2.0, 2.0]


def test_bad_number():
    with pytest.raises(InputError, match='LastEpochsHook: epochs must be 0 or more, got -1'):
        LastEpochsHook(-1, [])
