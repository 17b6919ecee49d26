"""Which label a network for segmentation maps ignores: its heads, its metrics, and pixels without a class."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor
from mmengine.runner import Runner

from icconv_mm.app.annotations.map_conversion import IGNORED
from icconv_mm.config_tree import as_list, kind_of
from icconv_mm.errors import InputError

OTHER_HEADS = ('STDCHead', 'SideAdapterCLIPHead')  # borders of objects; words as classes


def ignore_index(model_cfg: Mapping[str, Any]) -> int:
    """Returns the label that all heads of a model ignore; a head without ``ignore_index`` follows the others.

    Raises:
        InputError: Two heads differ. Padded pixels have one label for both.
    """
    heads = [
        (key, head)
        for key in ('decode_head', 'auxiliary_head')
        for head in as_list(model_cfg.get(key) or [])
        if kind_of(head) not in OTHER_HEADS
    ]
    settings = [(key, head['ignore_index']) for key, head in heads if head.get('ignore_index') is not None]
    for key, value in settings:
        if value != settings[0][1]:
            raise InputError(
                f'model.{settings[0][0]}.ignore_index is {settings[0][1]} and model.{key}.ignore_index is {value}: a '
                'map has one label for ignored pixels, so give both the same'
            )
    index = settings[0][1] if settings else IGNORED
    if index != IGNORED:
        for _, head in heads:
            head.setdefault('ignore_index', index)
    return index


class IgnoreIndexHook(Hook):
    """Gives pixels without a class, 255 in maps and paddings, the label that a network's heads and metrics ignore.

    Args:
        task: Name of the task in a network of several; '' for a single one.
        learned: The label that the heads ignore.
        measured: The label that the metrics ignore.
    """

    def __init__(self, task: str, learned: int, measured: int) -> None:
        self.task, self.learned, self.measured = task, learned, measured

    def before_run(self, runner: Runner) -> None:
        for module in runner.model.modules():
            if isinstance(module, BaseDataPreprocessor):  # after which nothing is padded
                module.register_forward_hook(self._relabel, with_kwargs=True)

    def _relabel(self, module: Any, given: Sequence[Any], options: Mapping[str, Any], data: Any) -> None:
        label = self.learned if options.get('training', given[1:] and given[1]) else self.measured
        for sample in (data.get('data_samples') or ()) if isinstance(data, Mapping) else ():
            sample_of_task = sample.get(self.task) if self.task else sample
            if sample_of_task is not None and 'gt_sem_seg' in sample_of_task:
                sample_of_task.gt_sem_seg.data.masked_fill_(sample_of_task.gt_sem_seg.data == IGNORED, label)


def ignoring_hooks(
    task: str, model_cfg: Mapping[str, Any], metrics: Sequence[MutableMapping[str, Any]]
) -> list[IgnoreIndexHook]:
    """Returns the hook for labels to be ignored other than 255, if any; a metric without such a label gets the heads'.

    Args:
        task: As for the hook.
        model_cfg: Config of the model.
        metrics: Configs of its metrics, changed in place.
    """
    learned = ignore_index(model_cfg)
    ious = [metric for metric in metrics if kind_of(metric) == 'IoUMetric']
    followers = [metric for metric in ious if metric.get('ignore_index') is None] if learned != IGNORED else []
    for metric in followers:
        metric['ignore_index'] = learned
    classes = [head.get('num_classes') or 0 for head in as_list(model_cfg.get('decode_head') or [])]
    if followers and learned < max(classes, default=0):
        print_log(f'class {learned} is ignored by the heads, and by IoUMetric as well (ignore_index)', 'current')
    measured = {metric.get('ignore_index', IGNORED) for metric in ious}
    measured = measured.pop() if len(measured) == 1 else IGNORED
    return [IgnoreIndexHook(task, learned, measured)] if {learned, measured} != {IGNORED} else []
