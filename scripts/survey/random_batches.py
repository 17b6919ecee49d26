"""Small models of a config, and batches of random annotated images for them, for each task library."""

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from icconv_mm.utils.config_tree import dicts_in

HEADS = (
    *('roi_head.bbox_head.0', 'roi_head.bbox_head', 'bbox_head', 'panoptic_head', 'panoptic_fusion_head'),
    *('mask_head', 'rpn_head', 'decode_head', 'decode_head.0', 'head', 'track_head'),
    *('head.csra_heads.0.head', 'head.right_hand_head'),
)
WITHIN = ('', 'detector.', 'student.')  # of trackers and of semi-supervised models
CLASSES = ('num_keypoints', 'num_joints', 'num_classes', 'out_channels')  # attributes of heads


def shrink(model: dict, size: int) -> None:
    """Few proposals, queries and samples, and no padding to the training size, in place."""
    for node in dicts_in(model):
        if node.get('type') == 'icconv_mm.SEPC':
            node['lcconv_padding'] = 1  # the coarsest level of so small an image has one cell
        for key, value in node.items():
            if key in ('max_per_img', 'num_queries', 'num_proposals'):
                node[key] = 20
            elif key == 'batch_augments':
                node[key] = None  # to the training size as well
            elif key == 'clip_border':
                node[key] = True  # masks of boxes beyond the image, as before training, cannot be pasted
            elif key == 'num_cp':
                node[key] = 0  # layers that compute again what they do not keep, which needs fairscale
            elif key == 'type' and value == 'MMSyncBN':
                node[key] = 'BN'  # of which there is one process
            elif key == 'prototype':
                node[key] = torch.rand(4, 2048)  # instead of images in a folder
            elif key == 'sampler' and 'num' in value:
                value['num'] = 16
            elif key == 'data_preprocessor' and value.get('size'):
                value['size'] = (size, size)


def classes_of(model: nn.Module) -> int | dict[str, int]:
    """The number of classes (of joints, in pose) that the head of a model tells apart; of several tasks, by name."""
    if hasattr(model, 'tasks'):
        return {name: classes_of(task) for name, task in model.tasks.items()}
    for name in (outer + inner for outer in WITHIN for inner in HEADS):
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
        size: The height and width of the images, in pixels. Images of one person or hand have the size of the
            config's codec, those for re-identification are twice as high as wide.
        count: How many samples; for re-identification there is one, of four images.

    Returns:
        Images ``[3, height, width]``, or what a model of its own kind has in their place, under 'inputs' and their
        annotations under 'data_samples'.
    """
    preprocessor = (cfg.model.get('data_preprocessor') or {}).get('type', '').rpartition('.')[2]
    if preprocessor == 'MultiBranchDataPreprocessor':  # of semi-supervised models
        branches = {name: _together(_detection, cfg, model, size, count) for name in BRANCHES}
        return {key: {name: batch[key] for name, batch in branches.items()} for key in ('inputs', 'data_samples')}
    if views := _views(cfg.get('train_dataloader')):  # of self-supervised models: a tensor of all images for each
        from mmpretrain.structures import DataSample

        inputs = [torch.stack([_picture(size, size) for _ in range(count)]) for _ in range(views)]
        return {'inputs': inputs, 'data_samples': [DataSample() for _ in range(count)]}
    if preprocessor == 'ReIDDataPreprocessor':
        return _together(_identities, cfg, model, size, 1)
    make_sample = _video if preprocessor == 'TrackDataPreprocessor' else OF_LIBRARY[cfg.default_scope]
    return _together(make_sample, cfg, model, size, count)


def _together(make_sample, cfg: Config, model: nn.Module, size: int, count: int) -> dict:
    pairs = [make_sample(cfg, size, classes_of(model)) for _ in range(count)]
    return {'inputs': [picture for picture, _ in pairs], 'data_samples': [sample for _, sample in pairs]}


def _picture(width: int, height: int) -> Tensor:
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
    pipeline = str(cfg.get('train_dataloader'))  # a dataset may hold another one, which has the steps
    panoptic = 'LoadPanopticAnnotations' in pipeline
    if panoptic or "'with_mask': True" in pipeline:
        sample.gt_instances.masks = BitmapMasks(masks, size, size)
    if panoptic or "'with_seg': True" in pipeline:
        sample.gt_sem_seg = PixelData(sem_seg=torch.randint(0, num_classes, (1, size, size)))
    if 'LoadProposals' in pipeline:
        sample.proposals = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
    return _picture(size, size), sample


def _video(cfg: Config, size: int, num_classes: int):
    """Two frames with the same instances."""
    from mmdet.structures import TrackDataSample

    frames, samples = zip(*[_detection(cfg, size, num_classes) for _ in range(2)])
    for number, sample in enumerate(samples):
        sample.gt_instances.labels = samples[0].gt_instances.labels
        sample.gt_instances.instances_ids = torch.arange(2)
        sample.set_metainfo({'frame_id': number, 'is_video_data': True, 'ori_video_length': 2})
    sample = TrackDataSample(metainfo={'key_frames_inds': [0], 'ref_frames_inds': [1]})
    sample.video_data_samples = list(samples)
    return torch.stack(frames), sample


def _identities(cfg: Config, size: int, num_classes: int):
    """Two images of each of two people, twice as high as wide."""
    from mmdet.structures import ReIDDataSample

    sample = ReIDDataSample(metainfo=_metainfo(size)).set_gt_label(np.array([0, 0, 1, 1]))
    return torch.stack([_picture(size, 2 * size) for _ in range(4)]), sample


def _segmentation(cfg: Config, size: int, num_classes: int):
    from mmseg.structures import SegDataSample

    labels = torch.randint(0, num_classes, (1, size, size))
    return _picture(size, size), SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=_metainfo(size))


def _classification(cfg: Config, size: int, num_classes: int):
    from mmpretrain.structures import DataSample

    sample = DataSample(metainfo=_metainfo(size))
    if 'CSRAClsHead' in str(cfg.model):
        return _picture(size, size), sample.set_gt_label([0, num_classes - 1])  # of several classes each
    return _picture(size, size), sample.set_gt_label(int(torch.randint(0, num_classes, ())))


def _pose(cfg: Config, size: int, num_keypoints: int):
    """Two people, or the one of a top-down model, encoded and packed as the training pipeline of a config does."""
    from mmpose.registry import TRANSFORMS

    pipeline = cfg.train_dataloader.dataset.pipeline
    first = [step.type.rpartition('.')[2] for step in pipeline].index('GenerateTarget')
    target, *rest = pipeline[first:]
    people = 1 if cfg.model.type == 'TopdownPoseEstimator' else 2
    encoder, (width, height) = target.encoder, (size, size)
    codec = encoder[0] if isinstance(encoder, list) else encoder
    if people == 1:  # the size is that of the head as well
        width, height = codec.get('input_size') or codec.image_size
    else:
        encoder = dict(codec, input_size=(size, size))
        if 'heatmap_size' in encoder:
            cells = size * encoder['heatmap_size'][0] // codec.input_size[0]
            encoder['heatmap_size'] = (cells, cells)
    dimensions, num_keypoints = (3, 2 * 21) if codec.type == 'Hand3DHeatmap' else (2, num_keypoints)
    keypoints = np.random.uniform(4, min(width, height) - 4, (people, num_keypoints, dimensions)).astype(np.float32)
    boxes = np.concatenate([keypoints[..., :2].min(1), keypoints[..., :2].max(1)], axis=1)
    results = {
        **_metainfo(size),
        'img': np.random.randint(0, 256, (height, width, 3), np.uint8),
        'img_shape': (height, width),
        'keypoints': keypoints,
        'transformed_keypoints': keypoints.copy(),
        'keypoints_visible': np.ones((people, num_keypoints), np.float32),
        'dataset_keypoint_weights': np.ones(num_keypoints, np.float32),
        'bbox': boxes,
        'bbox_center': (boxes[:, :2] + boxes[:, 2:]) / 2,
        'bbox_scale': boxes[:, 2:] - boxes[:, :2],
        'bbox_score': np.ones(people, np.float32),
        'category_id': [1] * people,
        'area': np.full(people, width * height / 2, np.float32),
        'input_size': (width, height),
        'input_center': np.array([width / 2, height / 2]),
        'input_scale': np.array([width, height]),
        'flip_indices': list(range(num_keypoints)),
        'warp_mat': np.eye(2, 3),
        # of hands in three dimensions
        'rel_root_depth': np.float32(0),
        'rel_root_valid': np.float32(1),
        'hand_type': np.array([[1, 0]], np.float32),
        'hand_type_valid': np.ones(1, np.float32),
        'focal': np.ones(2, np.float32),
        'principal_pt': np.ones(2, np.float32),
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
        picture, own = OF_LIBRARY[library](alone, size, num_classes[name])
        sample.set_field(own, name)
    return picture, sample


BOXES = {'bbox': 'bboxes', 'bbox_center': 'bbox_centers', 'bbox_scale': 'bbox_scales', 'bbox_score': 'bbox_scores'}
OF_LIBRARY = {'mmdet': _detection, 'mmseg': _segmentation, 'mmpretrain': _classification, 'mmpose': _pose}
OF_LIBRARY |= {'mmengine': _joint}  # the default scope of networks for several tasks
BRANCHES = ('sup', 'unsup_teacher', 'unsup_student')


def _views(loader: dict | None) -> int:
    """How many views of an image a data loader makes; 0 where it makes one and no list of it."""
    found = [node['num_views'] for node in dicts_in(loader) if node.get('type') == 'MultiView']
    return max((each if isinstance(each, int) else sum(each) for each in found), default=0)


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
