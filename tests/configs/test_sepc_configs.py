"""The recipes of SEPC: upstream's but for backbone, neck, head adaptor, and what test_authors.py holds."""

import re

import pytest
from config_utils import CONFIGS, read_config, upstream_of
from mmengine.config import Config

VARIANTS = {  # pconv_deform, lcconv_deform, ibn
    'sepc-pconv': (False, False, False),
    'sepc-pconv-ibn': (False, False, True),
    'sepc-lite': (False, True, True),
    'sepc': (True, True, True),
}
HEADS = {'retinanet': 'RetinaHead', 'freeanchor': 'FreeAnchorRetinaHead', 'fsaf': 'FSAFHead', 'atss': 'ATSSHead'}
ONE_STAGE = [(arch, variant) for arch in ('retinanet', 'freeanchor', 'fsaf') for variant in VARIANTS] + [
    ('atss', 'sepc')
]
TWO_STAGE = ['faster-rcnn', 'cascade-rcnn', 'mask-rcnn']


def recipe(arch, variant=None):
    folder = 'instance_segmentation' if arch == 'mask-rcnn' else 'detection'
    schedule = '4xb4-1x' if VARIANTS.get(variant, (False,))[-1] else '1x'  # integrated batch norm wants images
    return CONFIGS / folder / f'{arch}_r50_fpn{f"-{variant}" if variant else ""}_{schedule}_coco.py'


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    """Gives a recipe and the config that it inherits from, as dicts."""
    folder = tmp_path_factory.mktemp('upstream')

    def both(path):
        upstream = upstream_of(path)
        alone = folder / upstream.replace('/', '_').replace(':', '_')
        alone.write_text(f'_base_ = [{upstream!r}]\n')
        return read_config(path).to_dict(), read_config(alone).to_dict()

    return both


def without_what_may_differ(cfg):
    for extra in ('backbone', 'weights', 'pretrained', 'fine_tuned', 'neck', 'custom_imports'):
        cfg.pop(extra, None)
    del cfg['model']['backbone'], cfg['model']['neck']
    cfg['optim_wrapper'].pop('clip_grad', None)
    cfg.pop('sepc_warm_up', None)
    del cfg['train_dataloader']['batch_size'], cfg['param_scheduler'][0]
    head = cfg['model'].get('bbox_head', {})
    for key in ('type', 'head_type', 'stacked_convs', 'loss_bbox', 'bbox_coder'):
        head.pop(key, None)
    return cfg


@pytest.mark.parametrize('arch, variant', ONE_STAGE, ids='-'.join)
def test_one_stage_recipe(arch, variant, both):
    ours, upstream = both(recipe(arch, variant))
    head, neck = ours['model']['bbox_head'], ours['model']['neck']
    assert (head['type'], head['head_type']) == ('icconv_mm.SplitFeatureHead', HEADS[arch])
    assert (head['stacked_convs'], upstream['model']['bbox_head']['type']) == (0, HEADS[arch])
    assert neck[0] == upstream['model']['neck'] and neck[1]['type'] == 'icconv_mm.SEPC'
    assert neck[1]['num_outs'] == neck[0]['num_outs'] and neck[1]['in_channels'] == neck[0]['out_channels']
    assert tuple(neck[1].get(key, False) for key in ('pconv_deform', 'lcconv_deform', 'ibn')) == VARIANTS[variant]
    assert 'lcconv_padding' not in neck[1]  # the authors'
    assert without_what_may_differ(ours) == without_what_may_differ(upstream)


@pytest.mark.parametrize('arch', ['retinanet', 'freeanchor', 'fsaf'])
def test_baseline_is_upstreams(arch, both):
    ours, upstream = both(recipe(arch))
    assert ours['model']['neck'] == upstream['model']['neck']
    if arch == 'fsaf':
        assert ours['model']['bbox_head'].pop('bbox_coder') == dict(type='TBLRBBoxCoder', normalizer=1.0)
        del upstream['model']['bbox_head']['bbox_coder']
    assert ours['model']['bbox_head'] == upstream['model']['bbox_head']
    assert without_what_may_differ(ours) == without_what_may_differ(upstream)


@pytest.mark.parametrize('arch', TWO_STAGE)
def test_two_stage_recipe(arch, both):
    ours, upstream = both(recipe(arch, 'pconv'))
    neck = ours['model']['neck']
    assert neck[0] == upstream['model']['neck'] and neck[1]['type'] == 'icconv_mm.PConv'
    assert ours['model']['rpn_head'] == upstream['model']['rpn_head']
    assert ours['model']['roi_head'] == upstream['model']['roi_head']
    assert without_what_may_differ(ours) == without_what_may_differ(upstream)


@pytest.mark.parametrize(
    'path', [recipe('retinanet', 'sepc'), recipe('mask-rcnn', 'pconv')], ids=lambda path: path.stem
)
def test_one_line_changes_the_backbone(path, tmp_path):
    """As the README of the detectors says."""
    (block,) = re.findall(r'```python\n(.*?)```', (CONFIGS / 'detection/README.md').read_text(), re.DOTALL)
    (tmp_path / 'other.py').write_text(block.replace("'./retinanet_r50_fpn-sepc_4xb4-1x_coco.py'", repr(str(path))))
    changed = Config.fromfile(tmp_path / 'other.py', import_custom_modules=False).to_dict()
    expected = read_config(path).to_dict()
    assert changed['model']['backbone'].pop('pattern') == 'detection/ic_resnet50_k9'
    assert changed['model']['backbone'].pop('type') == 'icconv_mm.ICResNet'
    assert expected['model']['backbone'].pop('type') == 'icconv_mm.ResNet'
    assert changed['model']['backbone'].pop('init_cfg') is None
    assert expected['model']['backbone'].pop('init_cfg') == expected['weights']
    assert changed == expected
