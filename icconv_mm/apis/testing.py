"""Testing of any task by its config."""

from pathlib import Path

from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.fileio import dump

from icconv_mm.apis.config import as_config
from icconv_mm.apis.datasets import build_loop, check_data_paths, explaining_metrics
from icconv_mm.apis.preparation import prepare_test
from icconv_mm.apis.training import build_runner
from icconv_mm.engine import DeployHook


def test(
    cfg: Config | str | Path,
    checkpoint: str,
    *,
    out: str | None = None,
    out_item: str = 'pred',
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2.0,
    tta: bool = False,
    deploy: bool = False,
    memory_format: str | None = None,
    launcher: str = 'none',
) -> dict[str, float]:
    """Evaluate a checkpoint with the metrics of the config.

    Args:
        cfg: A config with ``work_dir`` set (:func:`icconv_mm.apis.load_config`), which is changed in place, or its
            file.
        checkpoint: The file to test. It must fit the model in every key.
        out: Write to this file what ``out_item`` says.
        out_item: ``'pred'``, the predictions to a pickle file, or ``'metrics'``, what is returned to a JSON file.
        show: Show predictions on screen, each for ``wait_time`` seconds.
        show_dir: Write images with predictions below this folder.
        wait_time: Seconds.
        tta: Average over augmented copies of each image.
        deploy: Test the deployed model (:func:`icconv_mm.deploy`).
        memory_format, launcher: The arguments of :func:`icconv_mm.apis.train`.

    Returns:
        Metric names and values. mmdet's ``CocoMetric`` gives none when nothing was detected.

    Raises:
        MissingFileError: A file that is named is not there.
        InputError, DatasetError, CheckpointError, ArchitectureMismatchError: Bad input, named in the message.
    """
    cfg = as_config(cfg)
    task = prepare_test(
        cfg,
        checkpoint,
        out=out,
        out_item=out_item,
        show=show,
        show_dir=show_dir,
        wait_time=wait_time,
        tta=tta,
        launcher=launcher,
    )
    check_data_paths(cfg, 'test')
    runner = build_runner(cfg, memory_format=memory_format)
    if deploy:
        runner.register_hook(DeployHook())
    build_loop(runner, task, 'test')
    with explaining_metrics(cfg):
        metrics = runner.test()
    if out is not None and out_item == 'metrics':
        master_only(dump)(metrics, out)
    return metrics
