"""Reading configs once, and batches of random annotated images for each task library."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData

REPO = Path(__file__).resolve().parents[2]
CONFIGS = REPO / 'configs'
SIZE = 64  # of the images, in pixels
HEADS = (
    *('roi_head.bbox_head.0', 'roi_head.bbox_head', 'bbox_head', 'panoptic_head', 'panoptic_fusion_head'),
    *('mask_head', 'rpn_head', 'decode_head', 'decode_head.0', 'head'),
)
POOLING = 9  # PyConvHead needs so many pixels at the stride of its backbone


def read_config(path: Path) -> Config:
    """A copy of a config that is read once: looking up an upstream config by its name takes half a second."""
    return deepcopy(_read(path))


@cache
def _read(path: Path) -> Config:
    return Config.fromfile(path, import_custom_modules=False)


def upstream_of(path: Path) -> str | None:
    """The config of a task library that a recipe inherits from as a whole, directly or through others."""
    for base in Config._get_base_files(str(path)):
        if '::' not in base:
            if found := upstream_of(path.parent / base):
                return found
        elif '::_base_/' not in base:
            return base
    return None


def shrink(node, size=SIZE):
    """Few proposals, queries and samples, and no padding to the training size."""
    if isinstance(node, list):
        for item in node:
            shrink(item, size)
    elif isinstance(node, dict):
        if node.get('type') == 'icconv_mm.SEPC':
            node['lcconv_padding'] = 1  # the coarsest level of so small a picture has one cell
        for key, value in node.items():
            if key in ('max_per_img', 'num_queries'):
                node[key] = 20
            elif key == 'batch_augments':
                node[key] = None  # to the training size as well
            elif key == 'sampler' and 'num' in value:
                value['num'] = 16
            elif key == 'data_preprocessor' and value.get('size'):
                value['size'] = (size, size)
            shrink(value, size)


def classes_of(model):
    """The number of classes (of joints, in pose) that the head of a model tells apart."""
    for name in HEADS:
        try:
            head = model.get_submodule(name)
        except AttributeError:
            continue
        for key in ('num_keypoints', 'num_classes'):
            if hasattr(head, key):
                return getattr(head, key)
    raise AssertionError(f'no head found in {type(model).__name__}')


def learn_one_step_and_predict(cfg, warm_up=False):
    """Builds the model of a config, takes a step on random pictures and predicts for them.

    Args:
        cfg: The config.
        warm_up: Take a small step before, whose gradients do not count.

    Returns:
        The model, its parameters before the step, and the loss.
    """
    pools = 'PyConvHead' in str(cfg.model.get('decode_head'))
    size = POOLING * cfg.model.backbone.get('output_stride', 8) if pools else SIZE
    shrink(cfg.model, size)
    if 'data_preprocessor' in cfg:  # as the runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    batch = make_batch(cfg, size=size, count=2, num_classes=classes_of(model))

    model.train()
    for lr in (1e-3, None) if warm_up else (None,):
        model.zero_grad()
        loss, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
        loss.backward()
        if lr:
            torch.optim.SGD(model.parameters(), lr=lr).step()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.optim.SGD(model.parameters(), lr=0.1).step()

    model.eval()
    if cfg.model.get('head', {}).get('type') == 'DEKRHead':
        batch = {key: values[:1] for key, values in batch.items()}  # it predicts for one picture at a time
    with torch.no_grad():
        results = model(**model.data_preprocessor(batch, False), mode='predict')
    assert len(results) == len(batch['inputs'])
    return model, before, loss


def make_batch(cfg: Config, size: int, count: int, num_classes: int) -> dict:
    """``count`` uint8 images [3, size, size] under 'inputs' and their annotations under 'data_samples'."""
    make_sample = {
        'mmdet': _detection,
        'mmseg': _segmentation,
        'mmpretrain': _classification,
        'mmpose': _pose,
    }[cfg.default_scope]
    return {
        'inputs': [torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for _ in range(count)],
        'data_samples': [make_sample(cfg, size, num_classes) for _ in range(count)],
    }


def _detection(cfg: Config, size: int, num_classes: int):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    masks = np.zeros((2, size, size), np.uint8)
    masks[0, 4 : size // 2, 4 : size // 2] = 1
    masks[1, size // 4 :, size // 3 :] = 1
    boxes = [[4, 4, size // 2, size // 2], [size // 3, size // 4, size, size]]
    sample = DetDataSample(metainfo=_metainfo(size))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32), labels=torch.randint(0, num_classes, (2,))
    )
    pipeline = str(cfg.train_dataloader)  # a dataset may hold another one, which has the steps
    panoptic = 'LoadPanopticAnnotations' in pipeline
    if panoptic or "'with_mask': True" in pipeline:
        sample.gt_instances.masks = BitmapMasks(masks, size, size)
    if panoptic or "'with_seg': True" in pipeline:
        sample.gt_sem_seg = PixelData(sem_seg=torch.randint(0, num_classes, (1, size, size)))
    if 'LoadProposals' in pipeline:
        sample.proposals = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
    return sample


def _segmentation(cfg: Config, size: int, num_classes: int):
    from mmseg.structures import SegDataSample

    labels = torch.randint(0, num_classes, (1, size, size))
    return SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=_metainfo(size))


def _classification(cfg: Config, size: int, num_classes: int):
    from mmpretrain.structures import DataSample

    return DataSample(metainfo=_metainfo(size)).set_gt_label(int(torch.randint(0, num_classes, ())))


def _pose(cfg: Config, size: int, num_keypoints: int):
    """Two people, encoded and packed as the training pipeline of a config does."""
    from mmpose.registry import TRANSFORMS

    pipeline = cfg.train_dataloader.dataset.pipeline
    first = [step.type for step in pipeline].index('GenerateTarget')
    target, *rest = pipeline[first:]
    encoder = dict(target.encoder, input_size=(size, size))
    if 'heatmap_size' in encoder:
        cells = size * encoder['heatmap_size'][0] // target.encoder.input_size[0]
        encoder['heatmap_size'] = (cells, cells)
    keypoints = np.random.uniform(4, size - 4, (2, num_keypoints, 2)).astype(np.float32)
    results = {
        **_metainfo(size),
        'img': np.zeros((size, size, 3), np.uint8),
        'keypoints': keypoints,
        'keypoints_visible': np.ones((2, num_keypoints), np.float32),
        'bbox': np.concatenate([keypoints.min(1), keypoints.max(1)], axis=1),
        'category_id': [1, 1],
        'area': np.full(2, size * size / 2, np.float32),
        'input_size': (size, size),
        'input_center': np.array([size / 2, size / 2]),
        'input_scale': np.array([size, size]),
        'flip_indices': list(range(num_keypoints)),
        'warp_mat': np.eye(2, 3),
    }
    for step in (dict(target, encoder=encoder), *rest):
        results = TRANSFORMS.build(step)(results)
    return results['data_samples']


def _metainfo(size: int) -> dict:
    return {
        'img_id': 0,
        'img_path': 'none.jpg',
        'ori_shape': (size, size),
        'img_shape': (size, size),
        'pad_shape': (size, size),
        'scale_factor': (1.0, 1.0),
        'flip': False,
    }
