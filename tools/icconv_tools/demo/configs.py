"""The configs that the demo runs: those of the package with another backbone, data folder or seed."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from icconv_mm.app.runs.config import move_data
from icconv_mm.app.runs.lengths import set_length
from icconv_mm.backbones import ResNet
from icconv_mm.errors import InputError
from icconv_tools import HOME
from icconv_tools.demo.tasks import DemoTask


def backbone_file(name: str) -> Path:
    """``configs/_base_/backbones/NAME.py``.

    Raises:
        InputError: There is none; the message lists those there are.
    """
    folder = HOME / 'configs/_base_/backbones'
    path = folder / f'{name}.py'
    if not path.is_file():
        names = ', '.join(sorted(file.stem for file in folder.glob('*.py')))
        raise InputError(f'--backbone: no file {path}; there are: {names}')
    return path


def prepare_config(
    task: DemoTask, folder: Path, *, backbone: Path, data: Path, seed: int, start: Path | None = None
) -> Path:
    """Write the config that trains and tests a task.

    Args:
        task: The task whose config is written.
        folder: Folder of the config and, later, of the predictions.
        backbone: The backbone file.
        data: The miniature dataset.
        seed: Seed of the training.
        start: A checkpoint with the backbone to start from; random weights without one.

    Returns:
        The file written.
    """
    cfg = Config.fromfile(str(HOME / 'configs' / task.config), import_custom_modules=False, format_python_code=False)
    use_backbone(cfg, Config.fromfile(str(backbone), import_custom_modules=False).backbone.to_dict())
    if start is not None:
        cfg.model.backbone.init_cfg = {'type': 'Pretrained', 'checkpoint': str(start), 'prefix': 'backbone.'}
        if task.fine_tuning and task.fine_tuning < cfg.train_cfg.max_iters:
            set_length(cfg, iters=task.fine_tuning)
            cfg.train_cfg.val_interval = cfg.default_hooks.checkpoint.interval = task.fine_tuning
    move_data(cfg, f'{data}/')
    cfg.randomness = {'seed': seed}
    cfg.train_cfg.val_begin = cfg.train_cfg.max_iters + 1  # the test that follows does it
    for evaluation in task.evaluations:
        cfg.merge_from_dict({f'{evaluation.evaluator}.{evaluation.kind.option}': f'{folder}/{evaluation.kind.value}'})
    path = folder / 'config.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(path)
    return path


def use_backbone(cfg: Config, backbone: dict[str, Any]) -> None:
    """Give a config another backbone, with what the task sets on top of it, and its channels to what comes after."""
    settings = {key: value for key, value in cfg.model.backbone.items() if key not in cfg.backbone}
    cfg.backbone = backbone
    cfg.model.backbone = backbone | settings
    width = cfg.model.backbone.get('base_channels', 64)
    width *= ResNet.arch_settings[backbone['depth']][0].expansion
    channels = [width * 2**stage for stage in range(4)]
    if 'neck' in cfg.model:
        neck = cfg.model.neck[0] if isinstance(cfg.model.neck, list) else cfg.model.neck
        neck.in_channels = channels[: len(neck.in_channels)]
        return
    last = cfg.model.backbone.get('out_indices', range(4))[-1]
    for name in ('head', 'decode_head', 'auxiliary_head'):
        if head := cfg.model.get(name):
            head.in_channels = channels[head.get('in_index', last)]
