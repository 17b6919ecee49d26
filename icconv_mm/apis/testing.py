"""Testing of any task by its config."""

from pathlib import Path

from mmengine.config import Config

from icconv_mm.apis.datasets import build_loop, check_dataloader_paths
from icconv_mm.apis.distributed import prepare_launch
from icconv_mm.apis.training import add_hooks, build_runner
from icconv_mm.checkpoints import safe
from icconv_mm.datasets.loading import check_pictures
from icconv_mm.engine import DeployHook
from icconv_mm.errors import InputError
from icconv_mm.tasks import get_task


def test(
    cfg: Config,
    checkpoint: str,
    *,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2.0,
    tta: bool = False,
    deploy: bool = False,
    launcher: str = 'none',
) -> dict[str, float]:
    """Evaluate a checkpoint with the metrics of the config.

    Args:
        cfg: A config with ``work_dir`` set (:func:`icconv_mm.apis.load_config`); changed in place.
        checkpoint: The file to test. It must fit the model in every key.
        out: Write the predictions to this pickle file.
        show: Show predictions on screen, each for ``wait_time`` seconds.
        show_dir: Write pictures with predictions below this folder.
        wait_time: Seconds.
        tta: Average over augmented copies of each picture.
        deploy: Test the inference form of the model (:func:`icconv_mm.deploy`).
        launcher: As for :func:`icconv_mm.apis.train`.

    Returns:
        Metric names and values. mmdet's ``CocoMetric`` gives none when nothing was detected.

    Raises:
        InputError, DatasetError, CheckpointError, ArchitectureMismatchError: Bad input, named in the message.
    """
    task = get_task(cfg, str(cfg.filename))
    safe.install()
    if not cfg.get('test_dataloader') or not cfg.get('test_evaluator'):
        raise InputError(f'{cfg.filename} cannot be tested: it has no test_dataloader or no test_evaluator')
    if '://' not in checkpoint and not Path(checkpoint).is_file():
        raise InputError(f'checkpoint: no such file: {checkpoint}')
    prepare_launch(cfg, launcher)
    cfg.load_from, cfg.resume = checkpoint, False
    if show or show_dir:
        task.show_predictions(cfg, show, show_dir and str(Path(show_dir).absolute()), wait_time)
    if tta:
        task.enable_tta(cfg)
    if out is not None:
        _dump_predictions(cfg, task.dump_metric, out)
    check_dataloader_paths(cfg, 'test')
    check_pictures(cfg)

    runner = build_runner(cfg)
    add_hooks(runner, cfg)
    if deploy:
        runner.register_hook(DeployHook())
    build_loop(runner, task, 'test')
    return runner.test()


def _dump_predictions(cfg: Config, metric: str, out: str) -> None:
    if not out.endswith(('.pkl', '.pickle')):
        raise InputError(f'--out: expected a name that ends in .pkl, got {out}')
    evaluator = cfg.test_evaluator
    metrics = list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]
    cfg.test_evaluator = [*metrics, {'type': metric, 'out_file_path': out}]
