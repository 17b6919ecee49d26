"""A recipe of each family is trained in small from converted weights: the learning rate of every step and group, and
the sizes of the batches, are the authors' of tests/data/authors.yml, with a schedule that is shorter by a factor."""

import pickle
from math import prod

import cv2
import numpy as np
import pytest
import torch
from authors import authors_of
from config_utils import CONFIGS, read_config, shrink
from layouts import detectron_blobs, ic_conv, pyconv
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS, init_default_scope
from torch import nn
from workspaces import TINY

from icconv_mm import apis
from icconv_mm.checkpoints import convert_file
from icconv_mm.config_tree import walk_dicts
from icconv_tools.miniature import ensure_miniature

pytestmark = pytest.mark.slow

WIDTH = 8  # base channels
WARM_UP = 100  # the iterations of a warm-up are fewer by this factor
# recipe -> epochs, or iterations, are fewer by this factor; the size of images; images of the set; the set's labels
RUNS = {
    'instance_segmentation/mask-rcnn_r50_fpt-gn_ms-2x_coco': (10000, 128, 4, 'instance'),
    'detection/faster-rcnn_ic-r50-k9_fpn_1x_coco': (1, 128, 4, 'detection'),
    'detection/retinanet_r50_fpn-sepc_4xb4-1x_coco': (1, 128, 4, 'detection'),
    'classification/pyconv-resnet50_8xb32-90e_in1k': (10, 32, 64, None),
    'semantic_segmentation/pyconvsegnet_pyconv-r50-d8_8xb2-100e_ade20k-473x473': (4210, 73, 4, 'semantic'),
    'pose/ae_r101_8xb16-300e_coco-640x640': (20, 128, 12, 'pose'),
}


@HOOKS.register_module()
class RecordSteps(Hook):
    """Keeps what each step trains with."""

    def __init__(self):
        self.steps, self.batches = [], []

    def before_train(self, runner):
        self.backbone = {key: value.clone() for key, value in runner.model.backbone.state_dict().items()}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = runner.optim_wrapper.optimizer.param_groups
        self.steps.append([(group['lr'], group['weight_decay']) for group in groups])
        self.batches.append(len(data_batch['inputs']))


def narrow(cfg):
    """A backbone of few channels, and what reads it."""
    backbone = cfg.model.backbone
    backbone.base_channels = WIDTH
    if 'pattern' in backbone:
        backbone.pattern = 'geometric_d4'
    if 'PyConv' in backbone.type:
        backbone.base_channels, backbone.stage_groups = 16, [(1, 2, 4, 4), (1, 2, 4), (1, 4), (1,)]
    factor = 64 // backbone.base_channels
    for node in walk_dicts(cfg.model):
        if isinstance(node.get('in_channels'), list) and node.in_channels == [256, 512, 1024, 2048]:
            node.in_channels = [channels // factor for channels in node.in_channels]
        elif node.get('in_channels') in (1024, 2048):
            node.in_channels //= factor


def shorten(cfg, factor):
    """The schedule in fewer iterations or epochs."""
    for name in ('max_iters', 'max_epochs'):
        if name in cfg.train_cfg:
            cfg.train_cfg[name] //= factor
    for scheduler in cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]:
        if scheduler.type == 'LinearLR' and not scheduler.by_epoch:
            scheduler.end = (scheduler.end - 1) // WARM_UP + 1
        elif scheduler.type == 'PolyLR':
            scheduler.end = (scheduler.end - 1) // factor + 1
        elif scheduler.type == 'MultiStepLR':
            scheduler.milestones = [step // factor for step in scheduler.milestones]
            if 'end' in scheduler:
                scheduler.end //= factor


def reduce_images(cfg, size):
    """The sizes of the training pipeline, so that the largest is ``size``."""
    steps = list(walk_dicts(cfg.train_dataloader.dataset.pipeline))
    for step in steps:
        for key in ('scale', 'scales'):
            pairs = step.get(key) if isinstance(step.get(key), list) else [step.get(key)]
            if isinstance(pairs[0], tuple):
                pairs = [tuple(size * side // 1400 for side in pair) for pair in pairs]
                step[key] = pairs if isinstance(step[key], list) else pairs[0]
        if 'crop_size' in step:
            step.crop_size = (size, size)
        if step.get('type') == 'RandomResizedCrop':
            step.scale = size
        if 'input_size' in step:
            step.input_size = (size, size)
        if 'heatmap_size' in step:
            step.heatmap_size = (size // 4, size // 4)


def use_miniature(cfg, labels, root, images):
    """The miniature set in the place of the recipe's, behind the recipe's own pipeline and sampler."""
    dataset = read_config(CONFIGS / f'_base_/datasets/miniature_{labels}.py').train_dataloader.dataset
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset = dict(dataset, pipeline=pipeline, indices=images, data_root=str(root))
    for step in walk_dicts(pipeline):
        step.pop('reduce_zero_label', None)  # of ADE20K alone
    if labels != 'pose':
        set_classes(cfg, 7 if labels == 'semantic' else 6)


def set_classes(cfg, count):
    """As many classes in the heads as the data have."""
    for node in walk_dicts(cfg.model):
        if 'num_classes' in node:
            node.num_classes = count


def use_folders(cfg, root, images):
    """Images of two classes in folders."""
    for index in range(images):
        folder = root / 'classes' / 'ab'[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f'{index}.png'), np.random.randint(0, 256, (40, 40, 3), dtype=np.uint8))
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset = dict(type='CustomDataset', data_prefix=str(root / 'classes'), pipeline=pipeline)
    set_classes(cfg, 2)


def converted_weights(cfg, folder):
    """The file that a recipe starts from, made of one as its authors released it; None where it starts from nothing."""
    if cfg.model.backbone.get('init_cfg') is None:
        return None
    net = MODELS.build({**cfg.model.backbone, 'init_cfg': None, 'frozen_stages': -1})
    net.init_weights()
    kind, style = type(net).__name__, cfg.model.backbone.get('style')
    released, out = folder / 'released', folder / 'converted.pth'
    if style == 'caffe':
        released = folder / 'released.pkl'
        released.write_bytes(pickle.dumps(detectron_blobs(net), protocol=2))
        convert_file(released, out, 'detectron')
    elif kind == 'ICResNet':
        torch.save(ic_conv(net), released)
        convert_file(released, out, 'ic-conv')
    elif kind == 'PyConvResNet':
        torch.save(pyconv(net), released)
        convert_file(released, out, 'pyconv')
    else:  # torchvision's keys are the backbone's
        torch.save(net.state_dict(), out)
        cfg.model.backbone.init_cfg.pop('prefix', None)
    cfg.model.backbone.init_cfg.checkpoint = str(out)
    return dict(net.named_parameters())


def steps_of(settings, name, factor, epoch):
    """A length of the authors in steps of the run: ``images`` or ``epochs`` of ``name``."""
    if 'epochs' in settings:
        values, unit = settings[f'epochs{name}'], epoch
    else:
        values, unit = settings[f'images{name}'], 1 / settings['images a step']
    scaled = [round(value * unit / factor) for value in (values if isinstance(values, list) else [values])]
    return scaled if isinstance(values, list) else scaled[0]


def share_of_the_rate(settings, step, factor, epoch):
    """The learning rate at a step as a share of the whole, as the authors' code computes it."""
    if 'polynomial decay' in settings:
        return (1 - step / steps_of(settings, '', factor, epoch)) ** settings['polynomial decay']
    share = prod(settings['fall'] for fall in steps_of(settings, ' before a fall', factor, epoch) if step >= fall)
    warm_up = settings['warm-up']
    if warm_up == 'none':
        return share
    if 'epochs' in warm_up:
        length = warm_up['epochs'] * epoch - 1
    else:
        length = warm_up.get('iterations', warm_up.get('images', 0) / settings.get('images a step', 1)) / WARM_UP
    return share * (warm_up['from'] + (1 - warm_up['from']) * min(1, step / length))


def group_of(settings, name, module):
    """The learning rate of a parameter, relative to the whole, and its decay, as the authors group them."""
    decay = settings.get('decay of weights', 0)
    if 'learning rate of heads' in settings and not name.startswith('backbone.'):
        return settings['learning rate of heads'] / settings['learning rate'], decay
    if name.endswith('.bias') and 'biases' in settings:
        return settings['biases']['lr'], settings['biases']['decay']
    if isinstance(module, nn.GroupNorm) and 'scales of group norms' in settings:
        return settings['scales of group norms']['lr'], settings['scales of group norms']['decay']
    return 1, decay


@pytest.fixture(scope='module')
def miniature(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'miniature'
    ensure_miniature(root, TINY)
    return root


@pytest.mark.parametrize('recipe', RUNS)
def test_a_run_has_the_authors_steps(recipe, miniature, tmp_path):
    factor, size, images, labels = RUNS[recipe]
    settings, _ = authors_of(recipe)
    cfg = read_config(CONFIGS / f'{recipe}.py')
    init_default_scope(cfg.default_scope)
    narrow(cfg)
    shorten(cfg, factor)
    shrink(cfg.model, size)
    reduce_images(cfg, size)
    if labels:
        use_miniature(cfg, labels, miniature, images)
    else:
        use_folders(cfg, tmp_path, images)
    weights = converted_weights(cfg, tmp_path)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='RecordSteps')]
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.work_dir, cfg.log_level = str(tmp_path / 'run'), 'ERROR'
    runner = apis.train(cfg, validate=False)
    (record,) = [hook for hook in runner.hooks if isinstance(hook, RecordSteps)]

    batch = settings.get('images per GPU') or settings['images a step'] // 8
    epoch = images // batch
    assert set(record.batches) == {batch}
    assert len(record.steps) == steps_of(settings, '', factor, epoch)
    if weights is not None:
        assert all(torch.equal(record.backbone[key], value) for key, value in weights.items())

    modules = dict(runner.model.named_modules())
    names = {id(parameter): name for name, parameter in runner.model.named_parameters()}
    groups = runner.optim_wrapper.optimizer.param_groups
    compared = 0
    for index, group in enumerate(groups):
        for parameter in group['params']:
            name = names[id(parameter)]
            if not parameter.requires_grad:
                continue
            lr, decay = group_of(settings, name, modules[name.rpartition('.')[0]])
            shares = [share_of_the_rate(settings, step, factor, epoch) for step in range(len(record.steps))]
            expected = [(settings['learning rate'] * lr * share, decay) for share in shares]
            assert [step[index] for step in record.steps] == [pytest.approx(value, rel=1e-5) for value in expected]
            compared += 1
            if len(groups) < 4:  # all parameters of a group are compared by the first
                break
    assert compared
