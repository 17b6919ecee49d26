"""The tasks of the demo. A row of the table is all that the demo knows of a task."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DemoTask:
    """What one task trains and how it is judged.

    Attributes:
        name: What ``--tasks`` calls it; its folder below the work folder.
        title: Its name in the table.
        config: The config below ``configs/``.
        metric: Its metric as the table shows it.
        key: The same as the evaluator calls it.
        threshold: The least value that passes.
        predictions: Kind of prediction, which says how they are written and drawn: 'boxes', 'masks' or 'keypoints'
            (COCO results), 'labels' (label maps).
        scale: What the evaluator's value is multiplied with, to be in 0..1.
        retests: Further tests of the checkpoint, which are reported and have no threshold: what the title adds, and
            the ``--cfg-options`` of the test.
        starts_from: The task whose trained backbone this one starts with, if the same demo has run it before, as
            recipes start with an ImageNet one; otherwise from random weights.
        fine_tuning: Iterations from there at most, where the config's are more than it takes.
    """

    name: str
    title: str
    config: str
    metric: str
    key: str
    threshold: float
    predictions: str
    scale: float = 1.0
    retests: tuple[tuple[str, tuple[str, ...]], ...] = ()
    starts_from: str | None = None
    fine_tuning: int | None = None

    def writer_options(self, folder: Path) -> dict[str, str]:
        """What makes ``test_evaluator`` write the predictions below ``folder``: an option of the task's own library."""
        option, name, _ = _WRITERS[self.predictions]
        return {option: f'{folder}/{name}'}

    def written(self, folder: Path) -> Path:
        """The file, or the folder of label maps, that comes of it."""
        return folder / _WRITERS[self.predictions][2]


# Per kind of prediction: the evaluator's option, the name that it gets, and the name of what is written.
_WRITERS = {
    'boxes': ('outfile_prefix', 'results', 'results.bbox.json'),
    'masks': ('outfile_prefix', 'results', 'results.segm.json'),
    'keypoints': ('outfile_prefix', 'results', 'results.keypoints.json'),
    'labels': ('output_dir', 'labels', 'labels'),
}

TASKS = (
    DemoTask(
        name='detection',
        title='box detection',
        config='detection/faster-rcnn_ic-r18_fpn_miniature.py',
        metric='box AP50',
        key='coco/bbox_mAP_50',
        threshold=0.60,
        predictions='boxes',
    ),
    DemoTask(
        name='instance',
        title='instance segmentation',
        config='instance_segmentation/mask-rcnn_ic-r18_fpn_miniature.py',
        metric='mask AP50',
        key='coco/segm_mAP_50',
        threshold=0.50,
        predictions='masks',
        starts_from='detection',
        fine_tuning=200,
    ),
    DemoTask(
        name='semantic',
        title='semantic segmentation',
        config='semantic_segmentation/fpn_ic-r18_miniature.py',
        metric='mIoU',
        key='mIoU',
        threshold=0.60,
        predictions='labels',
        scale=0.01,
        starts_from='detection',
    ),
    DemoTask(
        name='pose',
        title='bottom-up pose',
        config='pose/ae_ic-r18_miniature.py',
        metric='OKS AP50',
        key='coco/AP .5',
        threshold=0.40,
        predictions='keypoints',
        retests=((', 3 scales', ('test_dataloader.dataset.pipeline.1.scales=[2,1,0.5]',)),),
        starts_from='detection',
    ),
)

# What ``--neck`` adds to the table: a task with that neck.
NECKS = {
    'sepc': DemoTask(
        name='detection_sepc',
        title='box detection, SEPC',
        config='detection/retinanet_ic-r18_fpn-sepc_miniature.py',
        metric='box AP50',
        key='coco/bbox_mAP_50',
        threshold=0.50,
        predictions='boxes',
        starts_from='detection',
    ),
}
