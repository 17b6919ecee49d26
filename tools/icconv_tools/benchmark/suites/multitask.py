"""Suite 'multitask': one network for boxes, masks, semantic segmentation and pose against four networks.

The four have backbone, neck and heads of the one, with its weights, in the libraries' own classes: Faster R-CNN, Mask
R-CNN, semantic FPN, associative embedding. A call is a forward pass with decoding of random images: one pass through
backbone and neck against four, and, with the poses also of the mirrored images, as recipes test, two against five. Each
also stands against the networks of other recipes: the miniature one against those of single tasks, as the demo trains
either, that of COCO against the libraries' own files.
Random weights find something everywhere, so the number of boxes is limited to that of the objects of an average scene.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from icconv_mm.apis.config import model_without_own_weights
from icconv_mm.tasks.multitask import MultiTaskSample
from icconv_tools import HOME
from icconv_tools.benchmark import harness
from icconv_tools.benchmark.patterns import find_pattern
from icconv_tools.benchmark.report import Figure
from icconv_tools.benchmark.timing import Options, interleave

CONFIGS = HOME / 'configs'
LIMIT = 0.5  # of one forward pass against four
# recipe, batch, image, boxes per image: the miniature set has 4.9 objects in an image, COCO's val2017 7.3
MINIATURE, COCO = CASES = (
    ('multitask_ic-r18_fpn_miniature', 8, (128, 128), 5),
    ('multitask_ic-r50-k9_fpn_8xb4-50e_coco-640x640', 1, (640, 640), 7),
)
# recipes of each task alone: ours, or those of the libraries
SINGLE = {
    MINIATURE: {
        'boxes': 'detection/faster-rcnn_ic-r18_fpn_miniature.py',
        'instance': 'instance_segmentation/mask-rcnn_ic-r18_fpn_miniature.py',
        'semantic': 'semantic_segmentation/fpn_ic-r18_miniature.py',
        'pose': 'pose/ae_ic-r18_miniature.py',
    },
    COCO: {
        'boxes': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        'instance': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'semantic': 'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py',
        'pose': 'mmpose::body_2d_keypoint/associative_embedding/coco/ae_hrnet-w32_8xb24-300e_coco-512x512.py',
    },
}
SUBSTITUTE = 'geometric_d4'
TOLERANCE = 1e-4
_LIBRARIES = {'boxes': 'mmdet', 'instance': 'mmdet', 'semantic': 'mmseg', 'pose': 'mmpose'}


def run(options: Options) -> Iterator[Figure]:
    """Three figures per recipe: against four networks of its parts, also with mirrored poses, and four recipes.

    Raises:
        Disagreement: If networks of the same parts predict something else.
    """
    for case in CASES:
        name, batch, image, boxes = case
        size = options.scaled(*image)
        notes = {'image': 'x'.join(map(str, size)), 'batch': batch, 'boxes': boxes, 'pass': 'forward with decoding'}
        images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(options.device)
        label = f'{name} {batch}x3x{image[0]}x{image[1]}'
        for mirrored in (False, True):
            row = f'{label}{", poses also mirrored" if mirrored else ""}: one network / four'
            if options.wants(row):
                cfg = _multitask_config(name, boxes, mirrored)
                multitask = _multitask(cfg)
                alone = {task: _alone(task, cfg.model, multitask) for task in _LIBRARIES}
                one, four = _calls(multitask, alone, images)
                harness.check_equal(row, one(), four(), TOLERANCE)
                limit = LIMIT if case == COCO and not mirrored else None
                yield _figure(row, one, four, limit, notes, options)
        mirrored = case == COCO  # mmpose 1.3.2 cannot test its own without
        row = f'{label}{", poses also mirrored" if mirrored else ""}: one network / four recipes'
        if options.wants(row):
            alone = {task: _single(task, recipe, boxes, mirrored) for task, recipe in SINGLE[case].items()}
            calls = _calls(_multitask(_multitask_config(name, boxes, mirrored)), alone, images)
            yield _figure(row, *calls, None if mirrored else LIMIT, notes, options)


def _figure(row: str, one: Callable, four: Callable, limit: float | None, notes: dict, options: Options) -> Figure:
    times = interleave({'one': one, 'four': four}, options)
    return Figure('multitask', row, times['one'], times['four'], limit if options.scale == 1 else None, notes)


def _multitask_config(name: str, boxes: int, mirrored: bool = False) -> Config:
    cfg = Config.fromfile(str(CONFIGS / f'multitask/{name}.py'))
    cfg.model.tasks.pose.test_cfg.flip_test = mirrored
    cfg.model.tasks.instance.test_cfg.rcnn.max_per_img = boxes
    if '/' in cfg.model.backbone.pattern:
        cfg.model.backbone.pattern = find_pattern(cfg.model.backbone.pattern, SUBSTITUTE)
    return cfg


def _multitask(cfg: Config) -> nn.Module:
    torch.manual_seed(0)
    multitask = _built(model_without_own_weights(cfg))
    _few_people(multitask.tasks.pose)
    return multitask


def _few_people(network: nn.Module) -> None:
    """Random weights find people everywhere, these nowhere."""
    nn.init.normal_(network.head.final_layer.weight, std=0.001)


def _single(task: str, recipe: str, boxes: int, mirrored: bool) -> nn.Module:
    """The network of a recipe of one task, with random weights."""
    cfg = get_config(recipe) if '::' in recipe else Config.fromfile(str(CONFIGS / recipe))
    if task in ('boxes', 'instance'):
        cfg.model.test_cfg.rcnn.max_per_img = boxes
    if task == 'pose':
        cfg.model.test_cfg.flip_test = mirrored
    torch.manual_seed(0)
    network = _built(model_without_own_weights(cfg), _LIBRARIES[task])
    if task == 'pose':
        _few_people(network)
    return network


def _built(cfg: ConfigDict, scope: str = 'mmengine') -> nn.Module:
    with DefaultScope.overwrite_default_scope(scope):
        return revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg))).eval()


def _alone(task: str, cfg: ConfigDict, multitask: nn.Module) -> nn.Module:
    """The library's own network of a task with the weights of the one for all; of boxes, that of masks without them."""
    own = 'instance' if task == 'boxes' else task
    heads = copy.deepcopy(cfg.tasks[own])
    if task == 'boxes':
        heads.roi_head.update(mask_roi_extractor=None, mask_head=None)
    backbone = dict(cfg.backbone, out_indices=multitask.backbone.out_indices)  # mmpose's default is the last stage
    network = _built(ConfigDict(heads, backbone=backbone, neck=cfg.neck), _LIBRARIES[task])
    weights = {key.removeprefix(f'tasks.{own}.'): value for key, value in multitask.state_dict().items()}
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


# COCO's keypoints of the mirrored image: nose, then left and right in turn
_FLIPPED = [0, *(index for left in range(1, 17, 2) for index in (left + 1, left))]


def _calls(multitask: nn.Module, alone: dict[str, nn.Module], images: Tensor) -> tuple[Callable, Callable]:
    """One network and four, on the images."""
    device = images.device
    return _multitask_call(multitask.to(device), images), _separate_call(
        {task: network.to(device) for task, network in alone.items()}, images
    )


def _multitask_call(model: nn.Module, images: Tensor) -> Callable[[], list[Tensor]]:
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
    """Tensors to compare: boxes with scores, masks, logits, keypoints."""
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
