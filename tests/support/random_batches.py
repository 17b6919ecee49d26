"""Small models of a config, and batches of random annotated images for them, for each task library."""

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from icconv_mm.config_tree import walk_dicts

HEADS = ('roi_head.bbox_head.0', 'roi_head.bbox_head', 'bbox_head', 'panoptic_head', 'decode_head', 'head')
CLASSES = ('num_keypoints', 'num_joints', 'num_classes', 'out_channels')  # attributes of heads


def shrink(model: dict, size: int) -> None:
    """Few proposals, queries and samples, and no padding to the training size, in place."""
    for node in walk_dicts(model):
        if node.get('type') == 'icconv_mm.SEPC':
            node['lcconv_padding'] = 1  # the coarsest level of so small an image has one cell
        for key, value in node.items():
            if key in ('max_per_img', 'num_queries', 'num_proposals'):
                node[key] = 20
            elif key == 'batch_augments':
                node[key] = None  # to the training size as well
            elif key == 'sampler' and 'num' in value:
                value['num'] = 16
            elif key == 'data_preprocessor' and value.get('size'):
                value['size'] = (size, size)


def classes_of(model: nn.Module) -> int | dict[str, int]:
    """The number of classes (of joints, in pose) that the head of a model tells apart; of several tasks, by name."""
    if hasattr(model, 'tasks'):
        return {name: classes_of(task) for name, task in model.tasks.items()}
    for name in HEADS:
        try:
            head = model.get_submodule(name)
        except AttributeError:
            continue
        for key in CLASSES:
            if hasattr(head, key):
                return getattr(head, key)
    raise AssertionError(f'no head found in {type(model).__name__}')


def make_batch(cfg: Config, model: nn.Module, size: int, count: int = 2) -> dict:
    """Random uint8 images and annotations, as the data loader of a config gives them.

    Args:
        cfg: The config.
        model: What is built from it, which says how many classes or joints there are.
        size: The height and width of the images, in pixels.
        count: How many samples.

    Returns:
        Images ``[3, height, width]`` under 'inputs' and their annotations under 'data_samples'.
    """
    pairs = [OF_LIBRARY[cfg.default_scope](cfg, size, classes_of(model)) for _ in range(count)]
    return {'inputs': [image for image, _ in pairs], 'data_samples': [sample for _, sample in pairs]}


def _image(width: int, height: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


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
    if "'with_mask': True" in str(cfg.get('train_dataloader')):  # a dataset may hold another one, which has the steps
        sample.gt_instances.masks = BitmapMasks(masks, size, size)
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
    return _image(size, size), sample


def _segmentation(cfg: Config, size: int, num_classes: int):
    from mmseg.structures import SegDataSample

    labels = torch.randint(0, num_classes, (1, size, size))
    return _image(size, size), SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=_metainfo(size))


def _classification(cfg: Config, size: int, num_classes: int):
    from mmpretrain.structures import DataSample

    sample = DataSample(metainfo=_metainfo(size))
    return _image(size, size), sample.set_gt_label(int(torch.randint(0, num_classes, ())))


def _pose(cfg: Config, size: int, num_keypoints: int):
    """Two people, encoded and packed as the training pipeline of a config does."""
    from mmpose.registry import TRANSFORMS

    pipeline = cfg.train_dataloader.dataset.pipeline
    first = [step.type.rpartition('.')[2] for step in pipeline].index('GenerateTarget')
    target, *rest = pipeline[first:]
    codec = target.encoder[0] if isinstance(target.encoder, list) else target.encoder
    encoder = dict(codec, input_size=(size, size))
    if 'heatmap_size' in encoder:
        cells = size * encoder['heatmap_size'][0] // codec.input_size[0]
        encoder['heatmap_size'] = (cells, cells)
    keypoints = np.random.uniform(4, size - 4, (2, num_keypoints, 2)).astype(np.float32)
    boxes = np.concatenate([keypoints.min(1), keypoints.max(1)], axis=1)
    results = {
        **_metainfo(size),
        'img': np.random.randint(0, 256, (size, size, 3), np.uint8),
        'keypoints': keypoints,
        'transformed_keypoints': keypoints.copy(),
        'keypoints_visible': np.ones((2, num_keypoints), np.float32),
        'dataset_keypoint_weights': np.ones(num_keypoints, np.float32),
        'bbox': boxes,
        'bbox_center': (boxes[:, :2] + boxes[:, 2:]) / 2,
        'bbox_scale': boxes[:, 2:] - boxes[:, :2],
        'bbox_score': np.ones(2, np.float32),
        'category_id': [1, 1],
        'area': np.full(2, size**2 / 2, np.float32),
        'input_size': (size, size),
        'input_center': np.array([size / 2, size / 2]),
        'input_scale': np.array([size, size]),
        'flip_indices': list(range(num_keypoints)),
        'warp_mat': np.eye(2, 3),
    }
    packed = results
    for step in (dict(target, encoder=encoder), *rest):
        packed = TRANSFORMS.build(step)(packed)
    sample = packed['data_samples']
    for name, plural in BOXES.items():  # as in the pipeline for tests, which has no target
        sample.gt_instances.set_field(results[name], plural)
    return packed['inputs'], sample


def _joint(cfg: Config, size: int, num_classes: dict[str, int]):
    """All tasks of a network for several, each as its library has it."""
    from icconv_mm.tasks.multitask import MultiTaskSample

    dataset = cfg.train_dataloader.dataset
    parts = dataset.datasets if isinstance(dataset.datasets, list) else [dataset]
    packs = {name: steps for part in parts for name, steps in part.pipeline[-1].items() if isinstance(steps, list)}
    sample = MultiTaskSample()
    for name, task in cfg.model.tasks.items():
        library = {'icconv_mm': 'mmpose'}.get(scope := task.type.split('.')[0], scope)
        loader = {'dataset': {'pipeline': packs[name]}, 'sets': parts}
        alone = Config({'model': {'type': task.type}, 'train_dataloader': loader})
        image, task_sample = OF_LIBRARY[library](alone, size, num_classes[name])
        sample.set_field(task_sample, name)
    return image, sample


BOXES = {'bbox': 'bboxes', 'bbox_center': 'bbox_centers', 'bbox_scale': 'bbox_scales', 'bbox_score': 'bbox_scores'}
OF_LIBRARY = {'mmdet': _detection, 'mmseg': _segmentation, 'mmpretrain': _classification, 'mmpose': _pose}
OF_LIBRARY |= {'mmengine': _joint}  # the default scope of networks for several tasks


def _metainfo(size: int) -> dict:
    return {
        'img_id': 0,
        'img_path': 'none.jpg',
        'ori_shape': (size, size),
        'img_shape': (size, size),
        'pad_shape': (size, size),
        'scale_factor': (1.0, 1.0),
        'border': (0.0, size, 0.0, size),  # of the image within its canvas, for heads that pad around it
        'homography_matrix': np.eye(3, dtype=np.float32),
        'flip': False,
    }
