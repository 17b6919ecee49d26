"""The networks of the demo. A row of the table is all that the demo knows of one."""

from dataclasses import dataclass
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of prediction.

    Attributes:
        name: What it is.
        metric: What it is evaluated by, as the table shows it.
        key: The same as the evaluator calls it.
        option: The evaluator's option that makes it write the predictions: one of the task's own library.
        value: The name that the option gets.
        written: The name of what is written: COCO results, or a folder of segmentation maps.
        scale: What the evaluator's value is multiplied with, to be in 0..1.
    """

    name: str
    metric: str
    key: str
    option: str
    value: str
    written: str
    scale: float = 1.0


BOXES = Kind('boxes', 'box AP50', 'coco/bbox_mAP_50', 'outfile_prefix', 'results', 'results.bbox.json')
MASKS = Kind('masks', 'mask AP50', 'coco/segm_mAP_50', 'outfile_prefix', 'results', 'results.segm.json')
KEYPOINTS = Kind('keypoints', 'OKS AP50', 'coco/AP .5', 'outfile_prefix', 'results', 'results.keypoints.json')
LABELS = Kind('labels', 'mIoU', 'mIoU', 'output_dir', 'labels', 'labels', scale=0.01)


class Evaluation(NamedTuple):
    """One result of a trained network.

    Attributes:
        title: Name of the result in the table.
        kind: What is predicted.
        threshold: The least value of the metric that passes.
        part: The name of the task in a network for several.
        evaluator: Key of the config at which the metric is, as ``--cfg-options`` writes it.
    """

    title: str
    kind: Kind
    threshold: float
    part: str | None = None
    evaluator: str = 'test_evaluator'

    @property
    def key(self) -> str:
        """What the test calls the metric."""
        return self.kind.key if self.part is None else f'{self.part}/{self.kind.key}'


@dataclass(frozen=True)
class DemoTask:
    """What one network trains and how it is evaluated.

    Attributes:
        name: What ``--tasks`` calls it; its folder below the work folder.
        title: Name of the network in the table.
        config: The config below ``configs/``.
        evaluations: Results of the network, one or several.
        starts_from: The networks with whose trained backbone this one starts: the first of them that the same demo has
            run before, as recipes start with an ImageNet one; random weights if it has run none.
        fine_tuning: Iterations from there at most, where the config's are more than it takes.
        retests: Further tests of the checkpoint, whose last result is reported and has no threshold: what the title
            adds, and the ``--cfg-options`` of the test.
    """

    name: str
    title: str
    config: str
    evaluations: tuple[Evaluation, ...]
    starts_from: tuple[str, ...] = ()
    fine_tuning: int | None = None
    retests: tuple[tuple[str, tuple[str, ...]], ...] = ()


def _single(name: str, title: str, config: str, kind: Kind, threshold: float, **more) -> DemoTask:
    """A network for one task."""
    return DemoTask(name, title, config, (Evaluation(title, kind, threshold),), **more)


# Near the size that the networks learn from: of images of twice the size they find hardly anyone.
_SCALES = '[1.25,1,0.75]'

# fmt: off
# One network with the heads of the four below, and their thresholds.
MULTITASK = DemoTask(
    'all', 'one network', 'multitask/multitask_ic-r18_fpn_miniature.py',
    evaluations=(
        Evaluation('one network: boxes', BOXES, 0.60, 'instance', 'test_evaluator.0.metric'),
        Evaluation('one network: masks', MASKS, 0.50, 'instance', 'test_evaluator.0.metric'),
        Evaluation('one network: semantic segmentation', LABELS, 0.60, 'semantic', 'test_evaluator.1.metric'),
        Evaluation('one network: bottom-up pose', KEYPOINTS, 0.40, 'pose', 'test_evaluator.2.metric'),
    ),
    retests=((', 3 scales', (f'model.tasks.pose.test_cfg.test_scales={_SCALES}',)),),
)
SEPARATE = (
    _single('detection', 'box detection', 'detection/faster-rcnn_ic-r18_fpn_miniature.py', BOXES, 0.60),
    _single('instance', 'instance segmentation', 'instance_segmentation/mask-rcnn_ic-r18_fpn_miniature.py',
            MASKS, 0.50, starts_from=('detection',), fine_tuning=200),
    _single('semantic', 'semantic segmentation', 'semantic_segmentation/fpn_ic-r18_miniature.py',
            LABELS, 0.60, starts_from=('detection',)),
    _single('pose', 'bottom-up pose', 'pose/ae_ic-r18_miniature.py', KEYPOINTS, 0.40, starts_from=('detection',),
            retests=((', 3 scales', (f'test_dataloader.dataset.pipeline.1.scales={_SCALES}',)),)),
)
# What ``--neck`` adds to the table: a network with that neck, after the one whose backbone it starts with.
NECKS = {
    'sepc': _single('detection_sepc', 'box detection, SEPC', 'detection/retinanet_ic-r18_fpn-sepc_miniature.py',
                    BOXES, 0.50, starts_from=('detection',)),
}
# fmt: on
