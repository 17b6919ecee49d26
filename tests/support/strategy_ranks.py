"""Run by torchrun in two processes: what runners with strategies save, resume and test, of the recipes given.

Both ranks train a step, resume for another, and test, by each way of sharing out the work; all end with equal weights.
"""

import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_rank

from icconv_mm.apis import load_config, test, train
from icconv_mm.checkpoints import reading
from icconv_mm.checkpoints.matching import state_dict_of

FSDP = dict(type='MMFullyShardedDataParallel', use_orig_params=True)
STRATEGIES = {
    'plain': None,
    'ddp': dict(type='DDPStrategy'),
    'fsdp': dict(type='FSDPStrategy', model_wrapper=FSDP, state_dict_cfg='full'),
    'zero': None,
}


def config(recipe: str, strategy: str, folder: str, iterations: int) -> Config:
    """The recipe, narrow, for some iterations with the same images in the same order."""
    cfg = load_config(recipe)
    cfg.work_dir, cfg.randomness, cfg.log_level = folder, dict(seed=0), 'ERROR'
    cfg.model.backbone.norm_eval = True
    cfg.train_cfg.update(max_iters=iterations, val_interval=99)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.param_scheduler = None
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=1e-3, momentum=0.9)  # the same for shards
    cfg.optim_wrapper.pop('clip_grad', None)
    if strategy == 'zero':
        cfg.optim_wrapper.optimizer = dict(type='ZeroRedundancyOptimizer', optimizer_type='SGD', lr=1e-3, momentum=0.9)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1, by_epoch=False)
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    if STRATEGIES[strategy]:
        cfg.runner_type, cfg.strategy = 'FlexibleRunner', STRATEGIES[strategy]
    return cfg


def main() -> None:
    recipe, names = sys.argv[1], sys.argv[2].split(',')
    weights = {}
    for name in names:
        folder = f'runs/{Path(recipe).stem}_{name}'
        train(config(recipe, name, folder, 1), launcher='pytorch')
        barrier()  # the main process saves
        print(name, 'trained', flush=True)
        train(config(recipe, name, folder, 2), launcher='pytorch', resume=True)
        barrier()
        print(name, 'resumed', flush=True)
        metrics = test(config(recipe, name, folder, 2), f'{folder}/iter_2.pth', launcher='pytorch')
        assert metrics or get_rank() or 'rcnn' in recipe, metrics  # mmdet has none where nothing is found
        weights[name] = state_dict_of(reading.read(f'{folder}/iter_2.pth'))
        print(name, 'tested', flush=True)
    first = weights.pop(names[0])
    for name, other in weights.items():
        torch.testing.assert_close(other, first, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f'{name}: {text}')
    if get_rank() == 0:
        print('equal')


if __name__ == '__main__':
    main()
