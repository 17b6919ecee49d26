"""Classes of data and heads: what a library takes in silence, and learns wrong, is refused when all is built."""

import json
from types import SimpleNamespace

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.registry import DATASETS, METRICS, MODELS
from torch.utils.data import DataLoader

from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.app.adapters.libraries import adapter_of
from icconv_mm.app.runs.begin import begin
from icconv_mm.app.runs.prepare import Browsing
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.errors import InputError

RESNET = dict(type='icconv_mm.ICResNet', depth=18, pattern='dense', base_channels=8)
FPN = dict(type='mmdet.FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5)


class Labelled(BaseDataset):
    """One image, with names of classes."""

    def load_data_list(self):
        return [{'img_path': 'a.jpg'}]


def of(count: int, **meta) -> BaseDataset:
    return Labelled(metainfo={'classes': tuple(f'c{i}' for i in range(count)), **meta})


def built(library: str, settings: dict):
    pytest.importorskip(library)
    adapter_of(library)
    return MODELS.build(ConfigDict(settings, _scope_=library))


def retinanet(classes: int):
    head = dict(type='RetinaHead', num_classes=classes, in_channels=8, feat_channels=8, stacked_convs=1)
    return built('mmdet', dict(type='RetinaNet', backbone=RESNET, neck=FPN, bbox_head=head))


def cascade(classes: int):
    box = dict(type='Shared2FCBBoxHead', in_channels=8, fc_out_channels=8, roi_feat_size=7)
    loss = dict(type='CrossEntropyLoss')
    extractor = dict(
        type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', output_size=7), out_channels=8, featmap_strides=[4]
    )
    roi = dict(
        type='CascadeRoIHead', num_stages=2, stage_loss_weights=[1, 1], bbox_roi_extractor=extractor,
        bbox_head=[dict(box, num_classes=3, loss_cls=loss), dict(box, num_classes=classes, loss_cls=loss)],
    )  # fmt: skip
    rpn = dict(type='RPNHead', in_channels=8, feat_channels=8)
    heads = dict(rpn_head=rpn, roi_head=roi, test_cfg=dict(rpn={}, rcnn={}))
    return built('mmdet', dict(type='CascadeRCNN', backbone=RESNET, neck=FPN, **heads))


def segmentor(classes: int):
    head = dict(type='FCNHead', in_channels=64, channels=8, num_classes=3)
    aux = dict(type='FCNHead', in_channels=32, in_index=2, channels=8, num_classes=classes)
    return built('mmseg', dict(type='EncoderDecoder', backbone=RESNET, decode_head=head, auxiliary_head=[aux]))


def classifier(classes: int):
    head = dict(type='LinearClsHead', in_channels=64, num_classes=classes)
    neck = dict(type='GlobalAveragePooling')
    return built('mmpretrain', dict(type='ImageClassifier', backbone=RESNET, neck=neck, head=head))


NETWORKS = {
    'bbox_head': ('mmdet', retinanet),
    'roi_head.bbox_head.1': ('mmdet', cascade),
    'auxiliary_head.0': ('mmseg', segmentor),
    'head': ('mmpretrain', classifier),
}


@pytest.mark.parametrize('wrong', [1, 5])
@pytest.mark.parametrize('key', NETWORKS)
def test_heads_have_the_classes_of_the_data(key, wrong):
    library, network = NETWORKS[key]
    right, other = network(3), network(wrong)
    for data in (of(3), RepeatDataset(of(3), 2), ConcatDataset([of(3), of(3)])):
        adapter_of(library).check(right, data, 'train_dataloader.dataset', training=True)
        said = rf'^model\.{key}\.num_classes is {wrong}, but train_dataloader\.dataset has 3 classes: c0, c1, c2$'
        with pytest.raises(InputError, match=said):
            adapter_of(library).check(other, data, 'train_dataloader.dataset', training=True)
    adapter_of(library).check(other, Labelled(), 'd', training=True)  # data without names


@pytest.mark.parametrize(
    ('key', 'path'), [('auxiliary_head.0', 'decode_head.loss_decode'), ('head', 'head.loss_module')]
)
def test_losses_weigh_the_classes_of_the_data(key, path):
    """torch says no more than that a weight is not defined for all classes, in the first iteration."""
    library, network = NETWORKS[key]
    model = network(3)
    loss = model.get_submodule(path)
    for weights in (None, [1.0, 2.0, 3.0]):
        loss.class_weight = weights
        adapter_of(library).check(model, of(3), 'd', training=True)
    for wrong in (2, 4) if 'loss_decode' in path else (2, 5):  # elsewhere the background may have a weight
        loss.class_weight = [1.0] * wrong
        said = rf'^model\.{path}\.class_weight has {wrong} values, but d has 3 classes$'
        with pytest.raises(InputError, match=said):
            adapter_of(library).check(model, of(3), 'd', training=True)


def test_heads_have_the_keypoints_of_the_data():
    pytest.importorskip('mmpose')
    head = dict(type='icconv_mm.AEHead', in_channels=64, num_keypoints=17)
    model = built('mmpose', dict(type='icconv_mm.AEPoseEstimator', backbone=RESNET, head=head))
    adapter_of('mmpose').check(model, of(1, num_keypoints=17), 'd', training=True)
    with pytest.raises(InputError, match=r'^model\.head\.num_keypoints is 17, but d has 14 keypoints$'):
        adapter_of('mmpose').check(model, of(1, num_keypoints=14), 'd', training=True)


def test_heads_that_are_about_something_else():
    """COCO's things of a panoptic set, labels of another kind, words."""
    meta = {'thing_classes': ('c0', 'c1')}
    adapter_of('mmdet').check(retinanet(2), of(3, **meta), 'd', training=True)
    network = retinanet(2)
    network.language_model = True
    adapter_of('mmdet').check(network, of(3), 'd', training=True)
    with pytest.raises(InputError, match='num_classes is 2'):
        TaskAdapter().check(network, of(3), 'd', training=True)


# --- names of classes


def coco(tmp_path, *names: str) -> str:
    """A file that has one box of each category."""
    images = [{'id': 1, 'file_name': 'a.jpg', 'width': 64, 'height': 64}]
    boxes = [
        {'id': i, 'image_id': 1, 'category_id': i, 'bbox': [i, i, 9, 9], 'area': 81, 'iscrowd': 0}
        for i, _ in enumerate(names, 1)
    ]
    categories = [{'id': i, 'name': name} for i, name in enumerate(names, 1)]
    path = tmp_path / f'{"_".join(names)}.json'
    path.write_text(json.dumps({'images': images, 'annotations': boxes, 'categories': categories}))
    return str(path)


def voc(tmp_path, *names: str) -> str:
    """A folder that has one box of each name, in an image of its own."""
    (tmp_path / 'Annotations').mkdir(exist_ok=True)
    for name in names:
        box = '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>'
        size = '<size><width>64</width><height>64</height></size>'
        text = f'<annotation>{size}<object><name>{name}</name>{box}</object></annotation>'
        (tmp_path / 'Annotations' / f'{name}.xml').write_text(text)
    (tmp_path / 'list.txt').write_text('\n'.join(names))
    return str(tmp_path / 'list.txt')


def check(kind: str, ann_file: str, classes: tuple, **settings) -> None:
    pytest.importorskip('mmdet')
    adapter = adapter_of('mmdet')
    prefix = dict(sub_data_root=ann_file.rpartition('/')[0], img='')
    settings |= dict(type=f'mmdet.{kind}', ann_file=ann_file, metainfo={'classes': classes}, data_prefix=prefix)
    adapter.check(None, DATASETS.build({**settings, 'pipeline': []}), 'd', training=True)


@pytest.mark.parametrize(('kind', 'draw'), [('CocoDataset', coco), ('XMLDataset', voc)])
@pytest.mark.parametrize('settings', [{}, {'filter_cfg': {'filter_empty_gt': True}}], ids=str)
def test_a_class_that_the_config_misspells(tmp_path, kind, draw, settings):
    file = draw(tmp_path, 'thing', 'other', 'last')
    check(kind, file, ('thing', 'other', 'last'), **settings)
    check(kind, file, ('thing', 'last'), **settings)  # some of them
    for classes, hint in (
        (('thing', 'othr'), "did you mean 'other'"),
        (('thing', 'other', 'lsat'), "did you mean 'last'"),
        (('thing', 'helmet'), r"there are \['"),
        (('thin',), "did you mean 'thing'"),
    ):
        if settings and classes == ('thin',):  # nothing is left: not built
            continue
        said = rf"metainfo\.classes names '{classes[-1]}', which is not in .*; {hint}"
        with pytest.raises(DatasetError, match=said):
            check(kind, file, classes, **settings)


@pytest.mark.parametrize(('kind', 'draw'), [('CocoDataset', coco), ('XMLDataset', voc)])
def test_a_class_that_no_image_has(tmp_path, kind, draw):
    """Such as a rare one in the validation: every name of the data is one of the config."""
    check(kind, draw(tmp_path, 'thing', 'other'), ('thing', 'other', 'rare'))


def test_a_file_in_another_order(tmp_path):
    check('CocoDataset', coco(tmp_path, 'cat', 'dog'), ('cat', 'dog'))
    check('XMLDataset', voc(tmp_path, 'cat', 'dog'), ('dog', 'cat'))  # by name
    said = r"cat_dog\.json has another order than metainfo\.classes, so that 'cat' would be learned as 'dog': set .*"
    with pytest.raises(DatasetError, match=said + r"classes=\['cat', 'dog'\]"):
        check('CocoDataset', coco(tmp_path, 'cat', 'dog'), ('dog', 'cat'))
    with pytest.raises(DatasetError, match=r"lacks \['bird'\] of metainfo\.classes, so that 'cat' would be .* 'bird'"):
        check('CocoDataset', coco(tmp_path, 'cat', 'dog'), ('bird', 'cat', 'dog'))


@pytest.mark.parametrize(
    ('old', 'new', 'said'),
    [
        ('bndbox', 'box', r'object 1 \(thing\) has no <bndbox> of <xmin>, <ymin>, <xmax>, <ymax>$'),
        ('<xmax>9</xmax>', '<xmax>wide</xmax>', r'object 1 \(thing\) has no <bndbox> of'),
        ('<name>thing</name>', '', 'object 1 has no <name>$'),
        ('<width>64</width>', '', '<size> has no <width> and <height> in pixels$'),
        ('</annotation>', '', r'not XML \(no element found: line 1'),
    ],
    ids=str,
)
def test_a_file_of_voc_that_lacks_something(tmp_path, old, new, said):
    voc(tmp_path, 'other', 'thing')
    path = tmp_path / 'Annotations/thing.xml'
    path.write_text(path.read_text().replace(old, new))
    data = dict(type='mmdet.XMLDataset', data_root=str(tmp_path), ann_file='list.txt', metainfo={'classes': ('thing',)})
    loader = dict(dataset={**data, 'data_prefix': dict(sub_data_root=''), 'pipeline': []}, batch_size=1, num_workers=0)
    cfg = Config(dict(default_scope='mmdet', train_dataloader=loader))
    pytest.importorskip('mmdet')
    message = rf'^train_dataloader\.dataset: {path}: {said}'
    with pytest.raises(DatasetError, match=message):
        begin(cfg, purpose=Browsing()).build_dataset('train')
    cfg.train_dataloader.dataset.an_file = 'list.txt'  # then it is not the file
    with pytest.raises(InputError, match='an_file'):
        begin(cfg, purpose=Browsing()).build_dataset('train')


def test_files_of_voc_of_other_classes(tmp_path):
    voc(tmp_path, 'other', 'thing')
    path = tmp_path / 'Annotations/other.xml'
    path.write_text(path.read_text().replace('bndbox', 'box'))  # mmdet reads nothing of an object of no class
    data = dict(type='mmdet.XMLDataset', data_root=str(tmp_path), ann_file='list.txt', metainfo={'classes': ('thin',)})
    loader = dict(dataset={**data, 'data_prefix': dict(sub_data_root=''), 'pipeline': []}, batch_size=1, num_workers=0)
    cfg = Config(dict(default_scope='mmdet', train_dataloader=loader))
    pytest.importorskip('mmdet')
    said = r"^train_dataloader\.dataset: metainfo\.classes names 'thin', which is not in .*; did you mean 'thing'\?$"
    errors = begin(cfg, purpose=Browsing()).errors
    errors.building = 'train_dataloader'
    with pytest.raises(DatasetError, match=said), errors:
        DataLoader(DATASETS.build({**cfg.train_dataloader.dataset, 'filter_cfg': dict(filter_empty_gt=True)}))


def test_a_metric_in_another_order(tmp_path):
    """Where images are validated against another file than the one that they are from."""
    pytest.importorskip('mmdet')
    adapter, meta = adapter_of('mmdet'), {'classes': ('cat', 'dog')}
    metrics = {
        order: METRICS.build(dict(type='mmdet.CocoMetric', ann_file=coco(tmp_path, *order)))
        for order in (('cat', 'dog'), ('dog', 'cat'))
    }
    adapter.check_metric(metrics['cat', 'dog'], meta, 'val_evaluator')
    with pytest.raises(DatasetError, match=r'^val_evaluator\.ann_file: .* another order'):
        adapter.check_metric(metrics['dog', 'cat'], meta, 'val_evaluator')


def test_folders_in_another_order():
    pytest.importorskip('mmpretrain')
    folders = {'cat': 0, 'dog': 1}

    def labels(*classes):
        dataset = SimpleNamespace(metainfo={'classes': classes}, folder_to_idx=folders)
        adapter_of('mmpretrain').check_dataset(dataset, 'd')

    labels('cat', 'dog')
    labels('a tabby', 'a poodle')  # what folders are called in words
    with pytest.raises(DatasetError, match="'cat' would be learned as 'dog'"):
        labels('dog', 'cat')


def test_classes_as_an_argument_of_the_dataset():
    """As mmpretrain takes them; metainfo has priority, as there."""
    pytest.importorskip('mmpretrain')
    adapter, cfg = adapter_of('mmpretrain'), dict(type='CustomDataset', classes=['cat', 'dog'])
    assert adapter.classes(cfg) == ('cat', 'dog')
    assert adapter.classes({**cfg, 'metainfo': {'classes': ('a', 'b')}}) == ('a', 'b')
