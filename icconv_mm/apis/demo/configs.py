"""The configs that the demo runs: those of the package with another backbone, data folder or seed."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from icconv_mm.apis.demo.tasks import Task, writer_options
from icconv_mm.errors import InputError

DATA_ROOT = 'data/miniature/'  # as the configs of the package write it


def backbone_file(home: Path, name: str) -> Path:
    """``configs/_base_/backbones/NAME.py``.

    Raises:
        InputError: There is none; the message lists those there are.
    """
    folder = home / 'configs/_base_/backbones'
    path = folder / f'{name}.py'
    if not path.is_file():
        names = ', '.join(sorted(file.stem for file in folder.glob('*.py')))
        raise InputError(f'--backbone: no file {path}; there are: {names}')
    return path


def prepare_config(
    home: Path, task: Task, backbone: Path, data: Path, seed: int, folder: Path, start: Path | None = None
) -> Path:
    """Write the config that trains and tests a task.

    Args:
        home: The folder that holds ``configs/``.
        task: Which task.
        backbone: The backbone file.
        data: The miniature dataset.
        seed: Of the training.
        folder: Where the config and, later, the predictions go.
        start: A checkpoint with the backbone to start from; random weights without one.

    Returns:
        The file written.
    """
    cfg = Config.fromfile(str(home / 'configs' / task.config), import_custom_modules=False, format_python_code=False)
    use_backbone(cfg, Config.fromfile(str(backbone), import_custom_modules=False).backbone.to_dict())
    if start is not None:
        cfg.model.backbone.init_cfg = {'type': 'Pretrained', 'checkpoint': str(start), 'prefix': 'backbone.'}
        if task.fine_tuning and task.fine_tuning < cfg.train_cfg.max_iters:
            _set_iterations(cfg, task.fine_tuning)
    cfg = Config(_with_data_root(cfg.to_dict(), f'{data}/'), format_python_code=False)
    cfg.randomness = {'seed': seed}
    cfg.train_cfg.val_begin = cfg.train_cfg.max_iters + 1  # the test that follows does it
    cfg.test_evaluator.update(writer_options(task, str(folder)))
    path = folder / 'config.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(path)
    return path


def use_backbone(cfg: Config, backbone: dict[str, Any]) -> None:
    """Give a config another backbone, with what the task sets on top of it, and its channels to what comes after."""
    own = {key: value for key, value in cfg.model.backbone.items() if key not in cfg.backbone}
    cfg.backbone = backbone
    cfg.model.backbone = backbone | own
    factor = 4 if backbone['depth'] >= 50 else 1  # bottlenecks put out four times the channels
    channels = [factor * width for width in (64, 128, 256, 512)]
    if 'neck' in cfg.model:
        neck = cfg.model.neck[0] if isinstance(cfg.model.neck, list) else cfg.model.neck
        neck.in_channels = channels[: len(neck.in_channels)]
        return
    last = cfg.model.backbone.get('out_indices', range(4))[-1]
    for name in ('head', 'decode_head', 'auxiliary_head'):
        if head := cfg.model.get(name):
            head.in_channels = channels[head.get('in_index', last)]


def _set_iterations(cfg: Config, iterations: int) -> None:
    """Train for so many iterations, with the schedule of the learning rate in proportion."""
    factor = iterations / cfg.train_cfg.max_iters
    cfg.train_cfg.max_iters = cfg.train_cfg.val_interval = cfg.default_hooks.checkpoint.interval = iterations
    for scheduler in cfg.param_scheduler:
        for key in ('begin', 'end', 'T_max'):
            if key in scheduler:
                scheduler[key] = round(factor * scheduler[key])


def _with_data_root(node: Any, root: str) -> Any:
    """A config's values with every path below the package's data folder moved below ``root``."""
    if isinstance(node, dict):
        return {key: _with_data_root(value, root) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_with_data_root(value, root) for value in node)
    if isinstance(node, str) and node.startswith(DATA_ROOT):
        return root + node[len(DATA_ROOT) :]
    return node
