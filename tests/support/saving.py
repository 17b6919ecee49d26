"""The smallest run of mmengine that saves: one number learns, and every iteration is validated and saved."""

from pathlib import Path
from unittest import mock

import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner


class Numbers(BaseDataset):
    """Six of them."""

    def load_data_list(self):
        return [{'index': i} for i in range(6)]

    def prepare_data(self, idx):
        return {'inputs': torch.tensor([float(idx), 1.0])}


class Model(BaseModel):
    """Its loss depends on what it has learned, and its score on how often it was trained."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, inputs, mode='tensor'):
        inputs = torch.stack(inputs) if isinstance(inputs, (list, tuple)) else inputs
        value = (inputs * self.weight).sum()
        return [value] if mode == 'predict' else {'loss': value.square()}


class Score(BaseMetric):
    """Falls and rises."""

    def process(self, data_batch, data_samples):
        self.results.append(float(data_samples[0]))

    def compute_metrics(self, results):
        return {'score': abs(results[0])}


def run(folder, total: int, hook: type, *, resume=False, by_epoch=False, hooks=(), **options) -> list[float]:
    """Train for ``total`` iterations (epochs), saving after each; returns the losses of those that were run."""
    DefaultScope._instance_dict.clear()
    sampler = dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=False)
    length = dict(by_epoch=True, max_epochs=total) if by_epoch else dict(by_epoch=False, max_iters=total)
    with mock.patch('mmengine.runner.runner.collect_env', dict):  # it starts several compilers
        runner = Runner(
            model=Model(),
            work_dir=str(folder),
            train_dataloader=dict(dataset=Numbers(), batch_size=2, sampler=sampler),
            train_cfg={**length, 'val_interval': 1},
            val_dataloader=dict(dataset=Numbers(), batch_size=6, sampler=dict(type='DefaultSampler', shuffle=False)),
            val_cfg=dict(),
            val_evaluator=Evaluator(Score()),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.001, momentum=0.9)),
            default_hooks=dict(checkpoint=hook(interval=1, by_epoch=by_epoch, **options)),
            custom_hooks=list(hooks),
            randomness=dict(seed=0),
            resume=resume,
            experiment_name=f'{Path(folder).name}_{resume}_{total}_{id(options)}',
            log_level='ERROR',
        )
    return losses_of(runner)


def losses_of(runner: Runner) -> list[float]:
    """The losses of all iterations of a training."""
    losses = []
    step = runner.model.train_step
    runner.model.train_step = lambda *args, **kwargs: losses.append(out := step(*args, **kwargs)) or out
    runner.train()
    return [float(entry['loss']) for entry in losses]
