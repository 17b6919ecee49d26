"""Suite 'multitask': one network for boxes, masks, semantic segmentation and pose against four networks.

The four have backbone, neck and heads of the one, with its weights, in the libraries' own classes: Faster R-CNN, Mask
R-CNN, semantic FPN, associative embedding. A call is a forward pass with decoding of random images: one pass through
backbone and neck against four, and, with the poses also of the mirrored images, as recipes test, two against five.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from benchmarks import Figure, Options, contest, interleave
from benchmarks.choices import find_pattern
from icconv_mm.apis.config import model_config
from icconv_mm.tasks.multitask import MultiTaskSample

CONFIGS = Path(__file__).parents[3] / 'configs/multitask'
# recipe, batch, image, largest ratio that is wanted
CASES = (
    ('joint_ic-r18_fpn_miniature', 8, (128, 128), 0.5),
    ('joint_ic-r50-k9_fpn_8xb4-50e_coco-640x640', 1, (640, 640), 0.5),
)
SUBSTITUTE = 'geometric_d4'
TOLERANCE = 1e-4
BOXES = 10  # per image, about as many as a scene has: random weights find something everywhere
_ALONE = ('boxes', 'instance', 'semantic', 'pose')


def run(options: Options) -> Iterator[Figure]:
    """Two figures per recipe.

    Raises:
        Disagreement: If the networks predict something else.
    """
    for name, batch, image, limit in CASES:
        for mirrored in (False, True):
            poses = ', poses also mirrored' if mirrored else ''
            label = f'{name} {batch}x3x{image[0]}x{image[1]}{poses}: one network / four'
            if options.wants(label):
                cfg = Config.fromfile(str(CONFIGS / f'{name}.py'))
                cfg.model.tasks.pose.test_cfg.flip_test = mirrored
                limit = limit if options.scale == 1 else None
                yield _figure(cfg, label, batch, options.scaled(*image), limit, options)


def _figure(
    cfg: Config, label: str, batch: int, size: tuple[int, int], limit: float | None, options: Options
) -> Figure:
    if '/' in cfg.model.backbone.pattern:
        cfg.model.backbone.pattern = find_pattern(cfg.model.backbone.pattern, SUBSTITUTE)
    torch.manual_seed(0)
    cfg.model.tasks.instance.test_cfg.rcnn.max_per_img = BOXES
    joint = _built(model_config(cfg))
    nn.init.normal_(joint.tasks.pose.head.final_layer.weight, std=0.001)  # as before training: no people everywhere
    alone = {task: _alone(task, cfg.model, joint).to(options.device) for task in _ALONE}
    joint.to(options.device)
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(options.device)
    one, four = _joint_call(joint, images), _separate_call(alone, images)
    contest.check_equal(label, one(), four(), TOLERANCE)
    times = interleave({'one': one, 'four': four}, options)
    notes = {'image': 'x'.join(map(str, size)), 'batch': batch, 'boxes': BOXES, 'pass': 'forward with decoding'}
    return Figure('multitask', label, times['one'], times['four'], limit, notes)


def _built(cfg: ConfigDict, scope: str = 'mmengine') -> nn.Module:
    with DefaultScope.overwrite_default_scope(scope):
        return revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg))).eval()


def _alone(task: str, cfg: ConfigDict, joint: nn.Module) -> nn.Module:
    """The library's own network of a task with the weights of the joint one; of boxes, that of masks without them."""
    own = 'instance' if task == 'boxes' else task
    heads = copy.deepcopy(cfg.tasks[own])
    if task == 'boxes':
        heads.roi_head.update(mask_roi_extractor=None, mask_head=None)
    library = {'semantic': 'mmseg', 'pose': 'mmpose'}.get(task, 'mmdet')
    backbone = dict(cfg.backbone, out_indices=joint.backbone.out_indices)  # mmpose's default is the last stage
    network = _built(ConfigDict(heads, backbone=backbone, neck=cfg.neck), library)
    weights = {key.removeprefix(f'tasks.{own}.'): value for key, value in joint.state_dict().items()}
    network.load_state_dict({key: weights[key] for key in network.state_dict()})
    return network


def _samples(task: str, count: int, size: tuple[int, int]) -> list[BaseDataElement]:
    """What the preprocessor knows of images that fill the batch, as the library of a task has it."""
    from mmdet.structures import DetDataSample
    from mmpose.structures import PoseDataSample
    from mmseg.structures import SegDataSample

    kind = {'semantic': SegDataSample, 'pose': PoseDataSample}.get(task, DetDataSample)
    height, width = size
    sides = torch.tensor([width, height], dtype=torch.float32).numpy()
    meta = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), tuple(size))
    meta |= dict(scale_factor=(1.0, 1.0), img_path='', flip_indices=_FLIPPED)
    meta |= dict(input_size=(width, height), input_center=sides / 2, input_scale=sides)
    samples = [kind(metainfo=meta) for _ in range(count)]
    for sample in samples if task == 'pose' else ():
        sample.gt_instances = InstanceData()
    return samples


# COCO's joints of the mirrored image: nose, then left and right in turn
_FLIPPED = [0, *(index for left in range(1, 17, 2) for index in (left + 1, left))]


def _joint_call(model: nn.Module, images: Tensor) -> Callable[[], list[Tensor]]:
    def call() -> list[Tensor]:
        own = {task: _samples(task, len(images), images.shape[2:]) for task in model.tasks}
        samples = [MultiTaskSample(**dict(zip(own, each))) for each in zip(*own.values())]
        model(images, samples, mode='predict')
        predicted = {task: [sample.get(task) for sample in samples] for task in own}
        return _results({'boxes': predicted['instance'], **predicted})

    return torch.no_grad()(call)


def _separate_call(models: dict[str, nn.Module], images: Tensor) -> Callable[[], list[Tensor]]:
    def call() -> list[Tensor]:
        predicted = {}
        for task, model in models.items():
            samples = _samples(task, len(images), images.shape[2:])
            predicted[task] = model(images, samples, mode='predict')
        return _results(predicted)

    return torch.no_grad()(call)


def _results(predicted: dict[str, list[BaseDataElement]]) -> list[Tensor]:
    """Tensors to compare: boxes with scores, masks, logits, joints."""
    results = []
    for task, samples in predicted.items():
        for sample in samples:
            if task == 'semantic':
                results.append(sample.seg_logits.data)
                continue
            people = sample.pred_instances
            keys = {'pose': ('keypoints', 'bbox_scores'), 'instance': ('bboxes', 'scores', 'masks')}
            found = [torch.as_tensor(people.get(key)).float() for key in keys.get(task, ('bboxes', 'scores'))]
            results += [value for value in found if value.numel()]
    return results
