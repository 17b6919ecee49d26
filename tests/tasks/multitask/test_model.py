"""The joint network computes what the libraries' own networks compute, once for all tasks."""

import copy

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from multitask_recipes import SINGLE
from torch import nn

from icconv_mm.deployment import deploy
from icconv_mm.errors import InputError
from icconv_mm.tasks.multitask import MultiTaskSample
from icconv_mm.tasks.multitask.model import LossBalance

_OWN = ('type', 'backbone', 'neck', 'data_preprocessor', 'pretrained')
# all that its constructor asks for
_MASK_RCNN = dict(type='mmdet.MaskRCNN', rpn_head=None, roi_head=None, train_cfg=None, test_cfg=None)
_TYPES = {'instance': 'mmdet.MaskRCNN', 'semantic': 'mmseg.EncoderDecoder', 'pose': 'icconv_mm.AEPoseEstimator'}


def scoped(cfg, library):
    """A part of a library's config with the library in its type."""
    return dict(cfg, type=cfg.type if '.' in cfg.type else f'{library}.{cfg.type}')


@pytest.fixture(params=list(SINGLE))
def pair(request, load):
    """Name of a task, its config, the library's own network, and the joint one of that task with the same weights."""
    name = request.param
    cfg = load(SINGLE[name])
    single = MODELS.build(copy.deepcopy(cfg.model))
    single.init_weights()
    init_default_scope('mmengine')
    heads = {key: value for key, value in copy.deepcopy(cfg.model).items() if key not in _OWN}
    neck = scoped(cfg.model.neck, cfg.default_scope)
    joint = MODELS.build(
        dict(
            type='icconv_mm.MultiTaskModel',
            backbone=copy.deepcopy(cfg.model.backbone),
            neck=neck,
            tasks={name: dict(heads, type=_TYPES[name])},
        )
    )
    state = joint.state_dict()
    weights = {(k if k in state else f'tasks.{name}.{k}'): v for k, v in single.state_dict().items()}
    joint.load_state_dict(weights)
    return name, cfg, single, joint


def nested(name, samples):
    return [MultiTaskSample(**{name: sample}) for sample in samples]


def reseeded(call):
    torch.manual_seed(0)
    return call()


def test_losses_and_gradients_are_those_of_the_library(pair, batch):
    name, cfg, single, joint = pair
    init_default_scope(cfg.default_scope)
    data = single.data_preprocessor(batch(cfg), True)
    expected = reseeded(lambda: single(copy.deepcopy(data['inputs']), copy.deepcopy(data['data_samples']), mode='loss'))
    losses = reseeded(lambda: joint(data['inputs'], nested(name, data['data_samples']), mode='loss'))
    assert {key.partition('.')[2] for key in losses} == set(expected)
    total, loss = single.parse_losses(expected)[0], joint.parse_losses(losses)[0]
    torch.testing.assert_close(loss, total, rtol=1e-6, atol=1e-6)
    total.backward()
    loss.backward()
    grads = {key: p.grad for key, p in joint.named_parameters()}
    for key, parameter in single.named_parameters():
        gradient = grads[key if key in grads else f'tasks.{name}.{key}']
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-5, atol=1e-6, msg=key)


def test_predictions_are_those_of_the_library(pair, batch):
    name, cfg, single, joint = pair
    init_default_scope(cfg.default_scope)
    if name == 'pose':  # lively maps, in which an untrained network finds people
        for network in (single, joint.tasks.pose):
            torch.manual_seed(1)
            nn.init.normal_(network.head.final_layer.weight, std=0.3)
    if name == 'instance':
        single.test_cfg.rcnn.score_thr = joint.tasks.instance.test_cfg.rcnn.score_thr = 0.0
    single.eval()
    joint.eval()
    data = single.data_preprocessor(batch(cfg, 'val'), False)
    inputs = data['inputs']
    if isinstance(inputs, tuple):  # of pyramids
        inputs = torch.stack([pyramid[0] for pyramid in inputs])
    with torch.no_grad():
        expected = single(data['inputs'], copy.deepcopy(data['data_samples']), mode='predict')
        results = joint(inputs, nested(name, data['data_samples']), mode='predict')
    for one, other in zip(results, expected, strict=True):
        compare(one.get(name), other)


def compare(result, expected):
    fields = [key for key in expected.all_keys() if key.startswith('pred_')]
    assert fields
    for field in fields:
        one, other = getattr(result, field), getattr(expected, field)
        assert set(one.keys()) == set(other.keys())
        if isinstance(other, InstanceData):
            assert len(one) == len(other) > 0
        for key, value in other.items():
            as_tensor = torch.as_tensor(value).float(), torch.as_tensor(one.get(key)).float()
            torch.testing.assert_close(as_tensor[1], as_tensor[0], rtol=1e-6, atol=1e-6)


# --- all tasks


def calls_of(model):
    """A list that grows by the size of the images with each call of the backbone."""
    calls = []
    model.backbone.register_forward_pre_hook(lambda module, args: calls.append(tuple(args[0].shape)))
    return calls


def test_backbone_runs_once(joint_model, joint_cfg, batch):
    calls = calls_of(joint_model)
    data = joint_model.data_preprocessor(batch(joint_cfg), True)
    losses = joint_model(**data, mode='loss')
    assert calls == [(3, 3, 128, 128)]
    assert {key.split('.')[0] for key in losses} == {'instance', 'semantic', 'pose'}
    joint_model.tasks.pose.test_cfg['flip_test'] = False
    with torch.no_grad():
        joint_model.eval().val_step(batch(joint_cfg, 'val'))
    assert len(calls) == 2


def test_flip_and_scales_of_poses_pass_the_backbone_again(joint_model, joint_cfg, batch):
    calls = calls_of(joint_model)
    joint_model.tasks.pose.test_cfg.update(flip_test=True, test_scales=[1, 2, 0.5])
    with torch.no_grad():
        joint_model.eval().val_step(batch(joint_cfg, 'val', 2))
    sides = [shape[-1] for shape in calls]
    assert sides == [128, 256, 256, 128, 64, 64]  # shared; then 2, 2 flipped, 1 flipped, 0.5, 0.5 flipped


def without(data, name, rows):
    for i in rows:
        delattr(data['data_samples'][i], name)
    return data


@pytest.mark.parametrize('name', ['instance', 'semantic', 'pose'])
def test_absent_task_adds_nothing(joint_model, joint_cfg, batch, name):
    data = without(joint_model.data_preprocessor(batch(joint_cfg), True), name, range(3))
    losses = joint_model(**data, mode='loss')
    task_losses = {key: value for key, value in losses.items() if key.startswith(f'{name}.')}
    assert task_losses == {f'{name}.loss_absent': 0}
    joint_model.parse_losses(losses)[0].backward()
    for parameter in joint_model.tasks[name].parameters():
        assert parameter.grad is not None and not parameter.grad.any()
    assert all(parameter.grad is not None for parameter in joint_model.parameters())


def test_no_task_at_all(joint_model, joint_cfg, batch):
    data = joint_model.data_preprocessor(batch(joint_cfg), True)
    for name in list(joint_model.tasks):
        without(data, name, range(3))
    total, _ = joint_model.parse_losses(joint_model(**data, mode='loss'))
    total.backward()
    assert total == 0 and not any(parameter.grad.any() for parameter in joint_model.parameters())


def test_absence_is_exact_with_infinite_weights(joint_model, joint_cfg, batch):
    data = without(joint_model.data_preprocessor(batch(joint_cfg), True), 'pose', range(3))
    with torch.no_grad():
        joint_model.tasks.pose.head.final_layer.weight.fill_(float('inf'))
    total, _ = joint_model.parse_losses(joint_model(**data, mode='loss'))
    assert total.isfinite()


def test_images_without_labels_have_no_part(joint_model, joint_cfg, batch):
    """The loss of a task is that of the images that are labelled for it, alone."""
    joint_model.eval()  # statistics of the batch would see all images
    data = without(joint_model.data_preprocessor(batch(joint_cfg), True), 'pose', [1])
    losses = joint_model(**data, mode='loss')
    rows = [0, 2]
    alone = joint_model(data['inputs'][rows], [data['data_samples'][i] for i in rows], mode='loss')
    for key in ('pose.loss_kpt', 'pose.loss_push', 'pose.loss_pull'):
        torch.testing.assert_close(losses[key], alone[key], rtol=1e-5, atol=1e-7)


def test_constant_weights(joint_model, joint_cfg, batch):
    joint_model.eval()
    data = joint_model.data_preprocessor(batch(joint_cfg), True)
    joint_model.balance.constants = {}
    plain = joint_model(**data, mode='loss')
    joint_model.balance.constants = {'pose': 3.0}
    weighted = joint_model(**data, mode='loss')
    torch.testing.assert_close(weighted['pose.loss_kpt'], 3 * plain['pose.loss_kpt'])
    torch.testing.assert_close(weighted['semantic.decode.loss_ce'], plain['semantic.decode.loss_ce'])
    torch.testing.assert_close(weighted['semantic.decode.acc_seg'], plain['semantic.decode.acc_seg'])


def test_learned_weights(joint_cfg, batch):
    """Kendall et al.: exp(-s) L + s / 2, with the gradient 1/2 - L for s = 0."""
    joint_cfg.model.loss_weights = 'uncertainty'
    model = MODELS.build(joint_cfg.model)
    model.init_weights()
    data = without(model.data_preprocessor(batch(joint_cfg), True), 'semantic', range(3))
    losses = model(**data, mode='loss')
    pose = sum(value for key, value in losses.items() if key.startswith('pose.') and 'uncertainty' not in key)
    pose = (pose - losses['pose.weight']).detach()
    model.parse_losses(losses)[0].backward()
    gradients = {name: parameter.grad for name, parameter in model.balance.log_variances.items()}
    torch.testing.assert_close(gradients['pose'], 0.5 - pose)
    assert gradients['semantic'] == 0 and 'semantic.loss_uncertainty' not in losses


@pytest.mark.parametrize('losses, least, most', [([0.0] * 200, 1.0, 2.3e4), ([1e30, *[1.0] * 200], 1e-5, 1.0)])
def test_uncertainty_that_runs_away(losses, least, most):
    """A loss of 0, or a single huge one: the weight stays a number, and comes back."""
    balance = LossBalance(['a'], 'uncertainty')
    optimizer = torch.optim.SGD(balance.parameters(), 0.5)
    for loss in losses:
        weight, more = balance('a')
        assert least / 10 < weight.item() <= most * 10 and weight.isfinite()
        optimizer.zero_grad()
        (weight * loss + more['a.loss_uncertainty']).backward()
        optimizer.step()
    assert least < balance('a')[0].item() < most


def test_gradient_norms(joint_model, joint_cfg, batch):
    from mmengine.logging import MessageHub

    joint_model.gradient.log = True
    joint_model.balance.constants = {'instance': 1.0, 'semantic': 0.0, 'pose': 2.0}
    data = joint_model.data_preprocessor(batch(joint_cfg), True)
    joint_model.parse_losses(joint_model(**data, mode='loss'))[0].backward()
    scalars = MessageHub.get_current_instance().log_scalars
    norms = {name: scalars[f'train/{name}.grad_norm'].current() for name in joint_model.tasks}
    assert norms['semantic'] == 0 and norms['instance'] > 0 and norms['pose'] > 0


def test_deployed_form_gives_the_same(joint_model, joint_cfg, batch):
    joint_model.eval()
    deployed = deploy(joint_model)
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        expected, result = (model.tasks.semantic(images, mode='tensor') for model in (joint_model, deployed))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    assert deployed.tasks.pose.backbone.source is not joint_model.tasks.pose.backbone.source


@pytest.mark.parametrize('name', list(SINGLE))
def test_single_task_checkpoint_starts_its_parts(load, joint_cfg, tmp_path, name):
    cfg = load(SINGLE[name])
    if name != 'pose':  # as narrow and short as the joint network
        cfg.model.backbone = copy.deepcopy(joint_cfg.model.backbone)
        cfg.model.neck.in_channels = joint_cfg.model.neck.in_channels
    single = MODELS.build(cfg.model)
    torch.save({'state_dict': single.state_dict()}, tmp_path / 'single.pth')
    init_default_scope('mmengine')
    start = dict(type='Pretrained', checkpoint=str(tmp_path / 'single.pth'))
    joint_cfg.model.tasks[name].init_cfg = start
    if name != 'pose':  # its backbone is wider
        joint_cfg.model.backbone.init_cfg = dict(start, prefix='backbone.')
        joint_cfg.model.neck.init_cfg = dict(start, prefix='neck.')
    model = MODELS.build(joint_cfg.model)
    model.init_weights()
    state = model.state_dict()
    for key, value in single.state_dict().items():
        if name != 'pose' or key.startswith('head.'):
            assert torch.equal(state[key if key in state else f'tasks.{name}.{key}'], value), key


# --- bad input


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda model: model.tasks.__setitem__('instance', {}), r'model\.tasks\.instance: .* got \{\}'),
        (
            lambda model: model.tasks.__setitem__('instance', _MASK_RCNN),
            r'MaskRCNN has no head',
        ),
        (lambda model: model.tasks.semantic.pop('type'), r"model\.tasks\.semantic\.type: no 'type'"),
        (lambda model: model.tasks.semantic.update(type='EncoderDecoder'), r'name its library, as in mmdet\.'),
        (lambda model: model.tasks.semantic.update(backbone=dict(type='x')), r'semantic\.backbone: .* model\.backbone'),
        (lambda model: model.tasks.__setitem__('keys', model.tasks.pose), r"'keys' cannot be the name of a task"),
        (lambda model: model.tasks.__setitem__('floss', model.tasks.pose), r"'floss' cannot be the name of a task"),
        (lambda model: model.__setitem__('tasks', {}), r'model\.tasks: no task'),
        (
            lambda model: model.update(loss_weights=dict(depth=1.0)),
            r"loss_weights: no task 'depth'; there are instance",
        ),
        (lambda model: model.update(loss_weights=dict(pose=-1.0)), r'loss_weights\.pose: .* got -1\.0'),
        (lambda model: model.update(loss_weights='dwa'), r"'dwa', expected numbers by task or 'uncertainty'"),
    ],
)
def test_bad_config(joint_cfg, change, message):
    change(joint_cfg.model)
    with pytest.raises(InputError, match=message):
        MODELS.build(joint_cfg.model)
