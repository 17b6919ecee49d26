"""Hooks for losses and metrics that are not finite."""

import math
import re
import warnings
from typing import TYPE_CHECKING, Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from icconv_mm.errors import InputError
from icconv_mm.versions import command_of

if TYPE_CHECKING:
    pass


class FiniteLossHook(Hook):
    """Ends a training whose loss is not finite: its weights would never be finite again.

    Raises:
        InputError: The loss is not finite; the message has iteration, losses and images, and says where to look.
    """

    priority = 'VERY_HIGH'  # before the log and the checkpoints

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        values = {name: torch.as_tensor(value).detach() for name, value in (outputs or {}).items() if 'loss' in name}
        bad = {name: value.tolist() for name, value in values.items() if not bool(torch.isfinite(value).all())}
        if not bad:
            return
        losses = ', '.join(f'{name} {value}' for name, value in bad.items() if name != 'loss' or len(bad) == 1)
        images = ', '.join(_images_of(data_batch)) or 'unknown'
        rates = {rate for group in runner.optim_wrapper.get_lr().values() for rate in group}
        raise InputError(
            f'iteration {runner.iter + 1}: {losses}; images of the batch: {images}. Look at the labels of these '
            f'({command_of("prepare_data", "DATA")} lists boxes without an area), lower the learning rate '
            f'({max(rates, default=0):g} now), or leave out --amp; --keep-going passes over it'
        )


def _images_of(batch: Any) -> list[str]:
    """Returns the paths of a batch's images from the libraries' data samples."""
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    return [str(path) for each in samples or () if (path := getattr(each, 'img_path', None))]


class UnmeasuredHook(Hook):
    """Removes metrics without a value from a validation, after they are logged and before hooks monitor them.

    Without annotated objects, COCO's metrics are -1 and means are NaN. The first such value would become the best
    checkpoint, and ``EarlyStoppingHook`` would end the training.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._has_warned = False

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        monitored = {getattr(hook, 'monitor', None) for hook in runner.hooks}
        monitored.update(key for hook in runner.hooks for key in getattr(hook, 'key_indicators', None) or ())
        none = {key: value for key, value in (metrics or {}).items() if _is_unmeasured(key, value)}
        none = {key: value for key, value in none.items() if key in monitored or 'auto' in monitored}
        for key in none:
            del metrics[key]
        if none and not self._has_warned:
            self._has_warned = True
            warnings.filterwarnings('ignore', 'Skip early stopping process')  # from mmengine, at each validation
            runner.logger.warning(
                f'{", ".join(f"{key} is {value}" for key, value in none.items())}, as where a validation has no '
                'annotated object: no best checkpoint is chosen, no lack of progress ends the training, and the last '
                'checkpoint is the result'
            )


def _is_unmeasured(key: str, value: Any) -> bool:
    """Returns whether a metric is NaN, or the -1 of COCO's evaluation without objects."""
    is_of_coco = re.search('A[PR]', key) is not None
    return isinstance(value, (int, float)) and (math.isnan(value) or (value == -1 and is_of_coco))
