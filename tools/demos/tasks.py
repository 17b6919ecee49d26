"""The tasks of the demo. A row of the table is all that the demo knows of a task."""

from dataclasses import dataclass
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of prediction.

    Attributes:
        name: What it is.
        metric: What it is judged by, as the table shows it.
        key: The same as the evaluator calls it.
        option: The evaluator's option that makes it write the predictions: one of the task's own library.
        value: The name that the option gets.
        written: The name of what is written: COCO results, or a folder of label maps.
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
JOINTS = Kind('joints', 'OKS AP50', 'coco/AP .5', 'outfile_prefix', 'results', 'results.keypoints.json')
LABELS = Kind('labels', 'mIoU', 'mIoU', 'output_dir', 'labels', 'labels', scale=0.01)


class Judged(NamedTuple):
    """One result of a trained network: its name in the table, what it is, its metric, the least value that passes."""

    title: str
    kind: Kind
    key: str
    threshold: float


@dataclass(frozen=True)
class DemoTask:
    """What one task trains and how it is judged.

    Attributes:
        name: What ``--tasks`` calls it; its folder below the work folder.
        title: Name of the task in the table.
        config: The config below ``configs/``.
        kind: What it predicts.
        threshold: The least value of its metric that passes.
        starts_from: The task whose trained backbone this one starts with, if the same demo has run it before, as
            recipes start with an ImageNet one; otherwise from random weights.
        fine_tuning: Iterations from there at most, where the config's are more than it takes.
        retests: Further tests of the checkpoint, which are reported and have no threshold: what the title adds, and
            the ``--cfg-options`` of the test.
    """

    name: str
    title: str
    config: str
    kind: Kind
    threshold: float
    starts_from: str | None = None
    fine_tuning: int | None = None
    retests: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def judged(self) -> tuple[Judged, ...]:
        """The one result of the task."""
        return (Judged(self.title, self.kind, self.kind.key, self.threshold),)


@dataclass(frozen=True)
class JointTask:
    """One network for several tasks: trained once, tested once, judged for each. Attributes as of :class:`DemoTask`.

    Attributes:
        parts: For each result its title, the name of the task in the network, its kind and threshold.
    """

    name: str
    title: str
    config: str
    parts: tuple[tuple[str, str, Kind, float], ...]
    retests: tuple[tuple[str, tuple[str, ...]], ...] = ()
    starts_from: None = None
    fine_tuning: None = None

    @property
    def judged(self) -> tuple[Judged, ...]:
        """A result per part."""
        return tuple(Judged(title, kind, f'{task}/{kind.key}', least) for title, task, kind, least in self.parts)


_3_SCALES = (', 3 scales', ('test_dataloader.dataset.pipeline.1.scales=[2,1,0.5]',))
# fmt: off
TASKS = (
    DemoTask('detection', 'box detection', 'detection/faster-rcnn_ic-r18_fpn_miniature.py', BOXES, 0.60),
    DemoTask('instance', 'instance segmentation', 'instance_segmentation/mask-rcnn_ic-r18_fpn_miniature.py',
             MASKS, 0.50, starts_from='detection', fine_tuning=200),
    DemoTask('semantic', 'semantic segmentation', 'semantic_segmentation/fpn_ic-r18_miniature.py',
             LABELS, 0.60, starts_from='detection'),
    DemoTask('pose', 'bottom-up pose', 'pose/ae_ic-r18_miniature.py',
             JOINTS, 0.40, starts_from='detection', retests=(_3_SCALES,)),
)
# One network with the heads of the four.
JOINT = JointTask(
    'joint', 'one network', 'multitask/joint_ic-r18_fpn_miniature.py',
    parts=(
        ('one network: boxes', 'instance', BOXES, 0.60),
        ('one network: masks', 'instance', MASKS, 0.50),
        ('one network: semantic segmentation', 'semantic', LABELS, 0.60),
        ('one network: bottom-up pose', 'pose', JOINTS, 0.40),
    ),
    retests=((', 3 scales', ('model.tasks.pose.test_cfg.test_scales=[2,1,0.5]',)),),
)
# What ``--neck`` adds to the table: a task with that neck.
NECKS = {
    'sepc': DemoTask('detection_sepc', 'box detection, SEPC', 'detection/retinanet_ic-r18_fpn-sepc_miniature.py',
                     BOXES, 0.50, starts_from='detection'),
}
# fmt: on
