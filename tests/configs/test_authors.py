"""Recipes train as their authors did: what each would really run is measured on what it builds, and compared with the
facts of tests/data/authors.yml. A difference that the table in the family's README does not list fails, and so does one
that it lists and that is none."""

import re
from functools import cache

import pytest
import torch
import yaml
from authors import FACTS, authors_of, recipes_of
from config_utils import CONFIGS, read_config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from icconv_mm.config_tree import walk_dicts

NORMS = (_BatchNorm, nn.GroupNorm)
FAMILIES = {entry['family']: entry['table'] for entry in FACTS}


@cache
def differences(family):
    """The settings that the table of a family lists, each with the cells of its row."""
    text = (CONFIGS / FAMILIES[family] / 'README.md').read_text()
    (table,) = re.findall(rf'<!-- differences: {family} -->\n((?:\|.*\n)*)', text)
    head, _, *rows = [[cell.strip() for cell in line.strip('|\n').split('|')] for line in table.splitlines()]
    assert head == ['setting', 'authors', 'here', 'reason']
    assert all(len(row) == 4 and all(row) for row in rows), 'a difference without a reason'
    return {row[0]: row for row in rows}


class Run:
    """What a recipe would run, built without memory or data."""

    def __init__(self, recipe):
        cfg = self.cfg = read_config(CONFIGS / f'{recipe}.py')
        pytest.importorskip(cfg.default_scope)
        init_default_scope(cfg.default_scope)
        if '/' in str(cfg.model.backbone.get('pattern')):
            cfg.model.backbone.pattern = 'geometric_d4'  # which dilations is no matter here
        if 'data_preprocessor' in cfg:
            cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)  # as the runner does
        self.wrapper_type = cfg.optim_wrapper.get('type', 'OptimWrapper')
        with torch.device('meta'):
            self.model = MODELS.build(cfg.model)
        wrapper = {key: value for key, value in cfg.optim_wrapper.items() if key != 'loss_scale'}
        self.wrapper = build_optim_wrapper(self.model, {**wrapper, 'type': 'OptimWrapper'})
        self.optimizer = self.wrapper.optimizer
        self.train = [TRANSFORMS.build(step) for step in cfg.train_dataloader.dataset.pipeline]
        self.test = [TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline]
        scheduled = cfg.param_scheduler
        self.schedulers = {
            scheduler['type']: scheduler for scheduler in (scheduled if isinstance(scheduled, list) else [scheduled])
        }

    def step(self, *names, test=False):
        """The one transform of the pipeline that has one of these names; None without."""
        (*_, transform) = [
            None,
            *(transform for transform in (self.test if test else self.train) if type(transform).__name__ in names),
        ]
        return transform

    def by_epoch(self):
        return 'max_epochs' in self.cfg.train_cfg

    def batch(self):
        return self.cfg.auto_scale_lr.base_batch_size

    def length(self):
        if 'PolyLR' in self.schedulers:  # which ends with nothing one step behind the last one
            assert self.schedulers['PolyLR']['end'] == self.cfg.train_cfg.max_iters + 1
        return self.cfg.train_cfg.max_epochs if self.by_epoch() else self.cfg.train_cfg.max_iters * self.batch()

    def falls(self):
        steps = self.schedulers['MultiStepLR']
        assert steps.get('begin', 0) == 0 and steps['by_epoch'] == self.by_epoch()
        assert steps.get('end', self.cfg.train_cfg.get('max_epochs', self.cfg.train_cfg.get('max_iters'))) >= max(
            steps['milestones']
        )
        return steps['milestones'] if self.by_epoch() else [step * self.batch() for step in steps['milestones']]

    def warm_up(self):
        if 'LinearLR' not in self.schedulers:
            return 'none'
        linear = self.schedulers['LinearLR']
        if linear['by_epoch']:
            length = {'epochs': linear['end'] - linear['begin']}
        else:  # mmengine gives the whole rate at the last of its steps
            steps = linear['end'] - linear['begin'] - 1
            length = {'iterations': steps} if self.by_epoch() else {'images': steps * self.batch()}
        return {'from': linear['start_factor'], **length}

    def groups(self, kind):
        """The learning rates, relative to that of the optimiser, and decays of a kind of parameters that learn."""
        owners = {
            id(value): (module, name) for module in self.model.modules() for name, value in module._parameters.items()
        }
        groups = set()
        for group in self.optimizer.param_groups:
            for parameter in group['params']:
                module, name = owners[id(parameter)]
                if parameter.requires_grad and kind(module, name):
                    lr = group['lr'] / self.optimizer.defaults['lr']
                    groups.add((round(lr, 6), group['weight_decay']))
        return groups

    def heads_lr(self):
        rates = {}
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        for group in self.optimizer.param_groups:
            for parameter in group['params']:
                rates.setdefault(names[id(parameter)].split('.')[0], set()).add(round(group['lr'], 6))
        assert rates.pop('backbone') == {self.optimizer.defaults['lr']}
        ((lr,),) = {tuple(values) for values in rates.values()}
        return lr

    def pixels(self):
        source = self.model.data_preprocessor
        rgb = getattr(source, '_channel_conversion', None)
        rgb = bool(getattr(source, 'channel_conversion', getattr(source, 'to_rgb', rgb)))
        config = self.cfg.model.data_preprocessor
        return {'mean': list(config.mean), 'std': list(config.std), 'rgb': rgb}

    def short_sides(self):
        resize = self.step('Resize', 'RandomChoiceResize', 'RandomResize')
        if type(resize).__name__ == 'RandomChoiceResize':
            return sorted(min(scale) for scale in resize.scales)
        if type(resize).__name__ == 'RandomResize':
            return ' to '.join(str(min(scale)) for scale in resize.scale)
        return [min(resize.scale)]

    def long_side(self):
        resize = self.step('Resize', 'RandomChoiceResize', 'RandomResize')
        scales = getattr(resize, 'scales', None) or resize.scale
        ((side),) = {max(scale) for scale in (scales if isinstance(scales, list) else [scales])}
        return side

    def norms_of_the_backbone(self):
        norms = [module for module in self.model.backbone.modules() if isinstance(module, _BatchNorm)]
        learning = [module for module in norms if module.weight.requires_grad]
        self.model.train()
        moving = any(module.training for module in norms)
        return 'learning' if moving else 'fixed statistics' if learning else 'fixed'

    @property
    def boxes(self):
        """The box head of the last stage."""
        head = self.model.roi_head.bbox_head
        return head[-1] if isinstance(head, nn.ModuleList) else head

    def extractors(self, name='bbox_roi_extractor'):
        extractor = getattr(self.model.roi_head, name)
        return list(extractor) if isinstance(extractor, nn.ModuleList) else [extractor]

    def roi_layers(self, attribute, name='bbox_roi_extractor'):
        (value,) = {getattr(layer, attribute) for extractor in self.extractors(name) for layer in extractor.roi_layers}
        return value

    def samplers(self):
        cfg = self.model.train_cfg.rcnn
        ((num, share),) = {(settings.sampler.num, settings.sampler.pos_fraction) for settings in as_list(cfg)}
        return [num, share]


def only(values):
    """The one value of all."""
    (value,) = set(values)
    return value


def group(groups):
    ((lr, decay),) = groups
    return {'lr': lr, 'decay': decay}


def is_weight(module, name):
    return name == 'weight' and not isinstance(module, NORMS)


def is_scale(module, name):
    return name == 'weight' and isinstance(module, nn.GroupNorm)


def as_list(value):
    return value if isinstance(value, list) else [value]


def loss(module):
    """A loss of boxes with its border between square and absolute value."""
    kind = type(module).__name__
    return {'smooth_l1': module.beta} if kind == 'SmoothL1Loss' else kind


def shapes(module, *, without=()):
    """How many weights of each shape a module has, norms aside."""
    counts = {}
    for name, parameter in module.named_parameters():
        if name.endswith('weight') and parameter.ndim > 1 and not name.startswith(without):
            key = 'x'.join(map(str, parameter.shape))
            counts[key] = counts.get(key, 0) + 1
    return counts


MEASURES = {
    # every family
    'optimiser': lambda run: type(run.optimizer).__name__,
    'learning rate': lambda run: run.optimizer.defaults['lr'],
    'momentum': lambda run: run.optimizer.defaults['momentum'],
    'decay of weights': lambda run: only(decay for _, decay in run.groups(is_weight)),
    'biases': lambda run: group(run.groups(lambda module, name: name == 'bias')),
    'scales of group norms': lambda run: group(run.groups(is_scale)),
    'learning rate of heads': lambda run: run.heads_lr(),
    'images a step': lambda run: run.batch(),
    'images per GPU': lambda run: run.cfg.train_dataloader.batch_size,
    'epochs': lambda run: run.length() if run.by_epoch() else None,
    'images': lambda run: None if run.by_epoch() else run.length(),
    'epochs before a fall': lambda run: run.falls() if run.by_epoch() else None,
    'images before a fall': lambda run: None if run.by_epoch() else run.falls(),
    'fall': lambda run: run.schedulers['MultiStepLR']['gamma'],
    'cosine over epochs': lambda run: run.schedulers['CosineAnnealingLR']['T_max'],
    'polynomial decay': lambda run: run.schedulers['PolyLR']['power'],
    'warm-up': lambda run: run.warm_up(),
    'clipped at': lambda run: run.wrapper.clip_grad_kwargs['max_norm'],
    'flipped': lambda run: run.step('RandomFlip').prob,
    'pixels': lambda run: run.pixels(),
    'precision': lambda run: 'mixed' if run.wrapper_type == 'AmpOptimWrapper' else 'whole',
    # detectors
    'short sides': lambda run: run.short_sides(),
    'long side': lambda run: run.long_side(),
    'images of one orientation in a batch': lambda run: 'AspectRatio' in str(run.cfg.train_dataloader.batch_sampler),
    'backbone': lambda run: f'ResNet-{run.model.backbone.depth}, {run.model.backbone.style}',
    'frozen stages': lambda run: run.model.backbone.frozen_stages,
    'norms of the backbone': lambda run: run.norms_of_the_backbone(),
    'loss of boxes': lambda run: loss((run.boxes if hasattr(run.model, 'roi_head') else run.model.bbox_head).loss_bbox),
    'weight of the loss of boxes': lambda run: run.model.bbox_head.loss_bbox.loss_weight,
    'divisor of distances': lambda run: run.model.bbox_head.bbox_coder.normalizer,
    "loss of proposals' boxes": lambda run: loss(run.model.rpn_head.loss_bbox),
    'RPN': lambda run: 'sigmoid' if run.model.rpn_head.use_sigmoid_cls else 'softmax',
    'RPN, overlap': lambda run: [run.model.rpn_head.assigner.pos_iou_thr, run.model.rpn_head.assigner.neg_iou_thr],
    "RPN, overlap of a box's best anchor": lambda run: run.model.rpn_head.assigner.min_pos_iou,
    'RPN, samples': lambda run: [run.model.rpn_head.sampler.num, run.model.rpn_head.sampler.pos_fraction],
    'RPN, anchors beyond the border': lambda run: run.model.rpn_head.train_cfg.allowed_border,
    'proposals in training': lambda run: proposals(run.model.train_cfg.rpn_proposal),
    'proposals in testing': lambda run: proposals(run.model.test_cfg.rpn),
    'RoIs, samples': lambda run: run.samplers(),
    'RoIs, overlap': lambda run: run.model.roi_head.bbox_assigner.pos_iou_thr,
    'RoIs within a crowd': lambda run: run.model.roi_head.bbox_assigner.ignore_iof_thr,
    'anchors and RoIs within a crowd': lambda run: only(
        assigner.ignore_iof_thr
        for assigner in (run.model.rpn_head.assigner, *as_list(run.model.roi_head.bbox_assigner))
    ),
    'samples of RoIAlign': lambda run: run.roi_layers('sampling_ratio'),
    'samples of RoIAlign, masks': lambda run: run.roi_layers('sampling_ratio', 'mask_roi_extractor'),
    'RoIAlign shifts by half a pixel': lambda run: run.roi_layers('aligned'),
    'boxes by their first and last pixel': lambda run: of_eod(run),
    'scores of a cascade': lambda run: {
        'CascadeRoIHead': 'softmax of the mean of logits',
        'EODCascadeRoIHead': 'mean of probabilities',
    }[type(run.model.roi_head).__name__],
    'levels of a RoI': lambda run: {'GenericRoIExtractor': 'all', 'SingleRoIExtractor': 'one'}[
        type(run.extractors()[0]).__name__
    ],
    'boxes of a class': lambda run: not run.boxes.reg_class_agnostic,
    'box head': lambda run: {**shapes(run.boxes, without=('fc_cls', 'fc_reg')), 'classes': run.boxes.num_classes},
    'mask head': lambda run: {
        **shapes(run.model.roi_head.mask_head, without=('conv_logits',)),
        'classes': run.model.roi_head.mask_head.num_classes,
    },
    'detections': lambda run: detections(run.model.test_cfg.get('rcnn', run.model.test_cfg)),
    # classifiers
    'crop': lambda run: crop(run),
    'last norms start at zero': lambda run: run.model.backbone.zero_init_residual,
    'loss': lambda run: (
        {None: 'hard labels'}.get(run.model.data_preprocessor.batch_augments)
        or ' '.join(type(augment).__name__ for augment in run.model.data_preprocessor.batch_augments.augments)
    ),
    'test crop': lambda run: run.step('CenterCrop', test=True).crop_size[0],
    # segmentation
    'scaled from': lambda run: 'own size' if all(step.scale is None for step in choices(run)) else 'another size',
    'scaled by': lambda run: scaled_by(run),
    'rotated': lambda run: {
        'share': run.step('RandomRotate').prob,
        'degrees': max(run.step('RandomRotate').degree),
    },
    'rotated over': lambda run: list(run.step('RandomRotate').pal_val),
    'blurred': lambda run: {'share': run.step('RandomBlur').prob, 'kernel': run.step('RandomBlur').kernel_size},
    'colours distorted': lambda run: run.step('PhotoMetricDistortion') is not None,
    'most of a crop in one class': lambda run: run.step('RandomCrop').cat_max_ratio,
    'auxiliary loss': lambda run: run.model.auxiliary_head.loss_decode.loss_weight,
    'norms': lambda run: ' '.join({type(m).__name__ for m in run.model.modules() if isinstance(m, NORMS)}),
    'output stride': lambda run: OUTPUT[run.model.backbone.strides],
    'test window': lambda run: {'size': run.model.test_cfg.crop_size[0], 'stride': run.model.test_cfg.stride[0]},
    'test windows smaller than a crop': lambda run: (
        'padded' if run.model.data_preprocessor.test_cfg.size == run.model.test_cfg.crop_size else 'as they are'
    ),
    'test sizes, several': lambda run: [max(step.scale) for step in run_tta(run)[0]],
    'test, flipped at several sizes': lambda run: sorted(step.prob for step in run_tta(run)[1]) == [0, 1],
    'test, flipped at one size': lambda run: any(
        step.type == 'RandomFlip' for step in walk_dicts(run.cfg.test_pipeline)
    ),
    # pose
    'rotation': lambda run: run.step('BottomupAffine').rotate_factor,
    'shifted by': lambda run: run.step('BottomupAffine').shift_factor,
    'size': lambda run: list(run.step('BottomupAffine').input_size),
    'heat maps': lambda run: {
        'size': list(run.step('GenerateTarget').encoder.heatmap_size),
        'sigma': run.step('GenerateTarget').encoder.sigma,
    },
    'weights of the tag loss': lambda run: {
        'push': run.model.head.loss_module.tag_loss.push_weight,
        'pull': run.model.head.loss_module.tag_loss.pull_weight,
    },
    'head': lambda run: shapes(run.model.head),
    'grouping': lambda run: grouping(run.model.head.decoder.grouping),
    'test, flipped': lambda run: run.model.test_cfg.flip_test,
    'test sizes': lambda run: list(run.step('MultiScaleResize', test=True).scales),
    'test size': lambda run: test_size(run),
}
OUTPUT = {(1, 2, 1, 1): 8, (1, 2, 2, 1): 16}


def of_eod(run):
    """Whether anchors, coders and pooling have EOD's pixels (tests/parity/test_eod_boxes.py)."""
    rpn = run.model.rpn_head
    extractors = run.extractors() + (run.extractors('mask_roi_extractor') if run.model.roi_head.with_mask else [])
    boxes = run.model.roi_head.bbox_head
    heads = list(boxes) if isinstance(boxes, nn.ModuleList) else [boxes]
    parts = (rpn.prior_generator, rpn.bbox_coder, *(head.bbox_coder for head in heads), *extractors)
    return all(type(part).__name__.startswith('EOD') for part in parts)


def proposals(cfg):
    return [cfg.nms_pre, cfg.max_per_img]


def detections(cfg):
    return {'score': cfg.score_thr, 'nms': cfg.nms.iou_threshold, 'most': cfg.max_per_img}


def grouping(options):
    names = {
        'people': 'max_num_people',
        'nms': 'nms_kernel',
        'detection': 'detection_threshold',
        'tag': 'tag_threshold',
    }
    return {name: options[key] for name, key in names.items()}


def crop(run):
    transform = run.step('RandomResizedCrop', 'RandomCrop')
    return (transform.scale if type(transform).__name__ == 'RandomResizedCrop' else transform.crop_size)[0]


def choices(run):
    return [transforms.transforms[0] for transforms in run.step('RandomChoice').transforms]


def scaled_by(run):
    if affine := run.step('BottomupAffine'):
        return list(affine.scale_factor)
    factors = [step.scale_factor for step in choices(run)]
    return [min(factors)[0], max(factors)[0]] if isinstance(factors[0], tuple) else [min(factors), max(factors)]


def run_tta(run):
    return run.cfg.tta_pipeline[1].transforms


def test_size(run):
    if resize := run.step('ResizeEdge', test=True):
        return [resize.scale, run.step('CenterCrop', test=True).crop_size[0]]
    scale = run.step('Resize', test=True).scale
    return [max(scale)] if max(scale) == min(scale) else [max(scale), min(scale)]


test_size.__test__ = False
TOLD = sorted({recipe for entry in FACTS for recipe in recipes_of(entry)})


def same(measured, value):
    if isinstance(value, dict):
        return (
            isinstance(measured, dict)
            and measured.keys() == value.keys()
            and all(same(measured[k], value[k]) for k in value)
        )
    if isinstance(value, list):
        return isinstance(measured, list) and len(measured) == len(value) and all(map(same, measured, value))
    if isinstance(value, (bool, str)) or measured is None or isinstance(measured, str):
        return measured == value
    return measured == pytest.approx(value, rel=1e-5)


@cache
def measured_differences(recipe):
    """The settings in which a recipe is not its authors', with what it has."""
    settings, _ = authors_of(recipe)
    run = Run(recipe)
    measured = {name: MEASURES[name](run) for name in settings}
    return {name: value for name, value in measured.items() if not same(value, settings[name])}


@pytest.mark.parametrize('recipe', TOLD)
def test_a_recipe_is_its_authors_but_for_what_the_table_lists(recipe):
    _, family = authors_of(recipe)
    unlisted = {name: value for name, value in measured_differences(recipe).items() if name not in differences(family)}
    assert unlisted == {}


@pytest.mark.parametrize('family', FAMILIES)
def test_a_table_lists_differences_alone(family):
    entries = [entry for entry in FACTS if entry['family'] == family]
    listed = {name for entry in entries for name in entry.get('told', ())}
    differing = {name for entry in entries for recipe in recipes_of(entry) for name in measured_differences(recipe)}
    assert set(differences(family)) == listed | differing


PUBLISHED = ('detection', 'instance_segmentation', 'classification', 'semantic_segmentation', 'pose')


def test_every_recipe_with_a_published_figure_is_compared():
    for folder in PUBLISHED:
        models = yaml.safe_load((CONFIGS / folder / 'metafile.yml').read_text())['Models']
        published = {f'{folder}/{model["Name"]}' for model in models if 'Results' in model}
        assert published - set(TOLD) == set()
