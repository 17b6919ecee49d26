"""What options of other tools are called here: of FPT's and PyConv's authors, of mmdet 1.x and 2.x, and of others."""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

# options, without dashes before them and with - for _: what to write in their place
_HERE = {
    'bs b batch batch-size samples-per-gpu imgs-per-gpu': '--cfg-options train_dataloader.batch_size=N, the images of '
    'a GPU; of a test test_dataloader.batch_size=N, of tools/infer.py --batch-size N',
    'nw j workers num-workers workers-per-gpu': '--cfg-options train_dataloader.num_workers=N, of each GPU',
    'lr learning-rate': '--cfg-options optim_wrapper.optimizer.lr=RATE',
    'o optimizer': '--cfg-options optim_wrapper.optimizer.type=NAME',
    'momentum': '--cfg-options optim_wrapper.optimizer.momentum=SHARE',
    'wd weight-decay': '--cfg-options optim_wrapper.optimizer.weight_decay=RATE',
    'nesterov': '--cfg-options optim_wrapper.optimizer.nesterov=True',
    'iter-size': '--cfg-options optim_wrapper.accumulative_counts=N',
    'lr-steps': '--cfg-options param_scheduler.1.milestones="[30,60,80]", of the scheduler that has milestones',
    'lr-decay-gamma lr-reduce-factor': '--cfg-options param_scheduler.1.gamma=FACTOR, of the scheduler that has it',
    'max-epochs': '--epochs N, which stretches the schedule with it',
    'max-iters steps': '--iters N, which stretches the schedule with it',
    'seed': '--cfg-options randomness.seed=N',
    'deterministic': '--cfg-options randomness.deterministic=True',
    'set opts options': '--cfg-options KEY=VALUE ...',
    'data dataset data-root': '--cfg-options train_dataloader.dataset.data_root=DIR, and val_ and test_dataloader',
    'range': '--cfg-options test_dataloader.dataset.indices=N, the first N images',
    'load-ckpt load-from weights ckpt': 'tools/test.py and tools/infer.py take the checkpoint after the config; '
    'tools/train.py starts from it by --cfg-options load_from=FILE',
    'load-detectron pretrained': '--cfg-options model.backbone.init_cfg.checkpoint=FILE, which '
    'tools/convert_checkpoint.py made of the released one',
    'no-save': '--cfg-options default_hooks.checkpoint=None',
    'disp-interval print-freq p': '--cfg-options default_hooks.logger.interval=N',
    'use-tfboard': '--cfg-options visualizer.vis_backends.0.type=TensorboardVisBackend',
    'zero-init-residual': '--cfg-options model.backbone.zero_init_residual=True',
    'n-classes num-classes': '--cfg-options model.head.num_classes=N, or that of every head',
    'cfg config config-file': 'the config is the first argument and has no option',
    'resume-from': '--resume FILE',
    'start-step start-epoch start-iter': '--resume FILE goes on where the file was written',
    'autoscale-lr': '--auto-scale-lr',
    'fp16 half': '--amp',
    'validate': 'training validates unless --no-validate says not to',
    'e eval evaluate eval-only test-only': 'tools/test.py CONFIG CHECKPOINT, with the metrics of the config',
    'output-dir result-path save-dir project': '--work-dir DIR; of tools/infer.py --out-dir DIR',
    'image-dir img-dir images source': 'tools/infer.py takes the images after the config and the checkpoint',
    'vis': '--show-dir DIR of tools/test.py',
    'fuse-conv-bn': '--deploy of tools/test.py',
    'no-cuda gpu gpu-id gpu-ids device': 'CUDA_VISIBLE_DEVICES=IDS before the command; without IDS, it takes the CPU',
    'gpus num-gpus ng world-size dist-url multi-gpu-testing multiprocessing-distributed': 'torchrun '
    '--nproc_per_node=GPUS tools/train.py CONFIG --launcher pytorch, and likewise tools/test.py',
    'a arch model-depth groups lr-scheduler img imgsz train-crop-size val-crop-size val-resize': 'the config says it, '
    'or one of yours that inherits it',
}


class Parser(argparse.ArgumentParser):
    """A parser whose error has a line for each option that it does not know, but another tool does."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None) -> tuple:
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        own = re.findall(r'(?<![\w-])--?[a-z][\w-]*', self.format_help())
        options = [word.partition('=')[0] for word in self._given if re.match('--?[A-Za-z]', word)]
        hints = {option: hint for option in options if option not in own and (hint := _hint(option, own))}
        super().error('\n'.join([message, *(f'{option}: {hint}' for option, hint in hints.items())]))


def _hint(option: str, own: Sequence[str]) -> str | None:
    """What to write in the place of an option that a tool with the options ``own`` does not have."""
    name = option.lstrip('-').replace('_', '-')
    if f'--{name}' in own:
        return f'write --{name}'
    here = next((text for names, text in _HERE.items() if name in names.split()), None)
    if here and ('--cfg-options' in own or not here.startswith('--cfg-options')):
        return f'write {here}' if here.startswith('--') else here
    close = difflib.get_close_matches(f'--{name}', own, 1, 0.8)
    return f'did you mean {close[0]}?' if close else None
