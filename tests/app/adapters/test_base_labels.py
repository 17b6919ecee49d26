"""Masks, segmentation maps and levels that cannot be right are refused when all is built, or as they are read."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from drawn_sets import edited
from mmengine.config import ConfigDict
from mmengine.dataset import ConcatDataset
from mmengine.registry import DATASETS, METRICS, MODELS

from icconv_mm import apis
from icconv_mm.app.adapters.base import NotSupportedError
from icconv_mm.app.adapters.choose import scope_and_adapter
from icconv_mm.app.adapters.libraries import adapter_of
from icconv_mm.config_tree import datasets_of
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.datasets.loading import ImageFileError
from icconv_mm.errors import InputError

HEIGHT, WIDTH = 40, 64
SQUARE = [[4, 4, 14, 4, 14, 14, 4, 14]]
# what else can be wrong is in tests/datasets/test_segmentations.py
WRONG = {
    'no segmentation': None,
    'the runs have 300 pixels, but the image 2560 .64 x 40.': {'size': [HEIGHT, WIDTH], 'counts': [100, 200]},
    'the first polygon has 2 points': [[1, 2, 3, 4]],
}


@pytest.fixture
def coco(tmp_path):
    """Writes a file of two images, whose last annotation has a segmentation or none; gives its path."""

    def written(segmentation, **changes) -> str:
        images = [{'id': i, 'file_name': f'{i}.jpg', 'width': WIDTH, 'height': HEIGHT} for i in (1, 2)]
        box = {'category_id': 1, 'bbox': [4, 4, 10, 10], 'area': 100, 'iscrowd': 0, 'segmentation': SQUARE}
        last = {**box, 'segmentation': segmentation, **changes}
        annotations = [{**box, 'id': 5, 'image_id': 1}, {**last, 'id': 6, 'image_id': 2}]
        content = {'images': images, 'annotations': annotations, 'categories': [{'id': 1, 'name': 'thing'}]}
        (tmp_path / 'a.json').write_text(json.dumps(content))
        return str(tmp_path / 'a.json')

    return written


def changed(file: str, changes: dict, *which: int) -> None:
    """Change these annotations of a file."""
    with edited(Path(file)) as content:
        for i in which:
            content['annotations'][i].update(changes)


def masks_of(ann_file: str, **settings):
    pytest.importorskip('mmdet')
    adapter_of('mmdet')
    load = dict(type='mmdet.LoadAnnotations', with_mask=settings.pop('with_mask', True))
    settings = dict(type='mmdet.CocoDataset', ann_file=ann_file, metainfo={'classes': ('thing',)}, **settings)
    settings['data_prefix'] = {'img': ''}
    return DATASETS.build({**settings, 'pipeline': [load]})


@pytest.mark.parametrize('message', WRONG)
@pytest.mark.parametrize('test_mode', [False, True])
def test_masks_of_a_detector(coco, message, test_mode):
    adapter, file = adapter_of('mmdet'), coco(WRONG[message])
    said = rf'^d: {file}: image 2 \(2\.jpg\), annotation 6: {message}'
    with pytest.raises(DatasetError, match=said):
        adapter.check(None, masks_of(file, test_mode=test_mode), 'd', training=not test_mode)
    adapter.check(None, masks_of(file, with_mask=False), 'd', training=True)  # which nobody reads
    adapter.check(None, masks_of(coco(SQUARE)), 'd', training=True)


@pytest.mark.parametrize('message', WRONG)
def test_masks_of_a_metric(coco, message):
    file = coco(WRONG[message])
    pytest.importorskip('mmdet')
    adapter, meta = adapter_of('mmdet'), {'classes': ('thing',)}
    boxes, masks = (
        METRICS.build(dict(type='mmdet.CocoMetric', ann_file=file, metric=kind)) for kind in ('bbox', 'segm')
    )
    adapter.check_metric(boxes, meta, 'val_evaluator', file)
    with pytest.raises(DatasetError, match=rf'^val_evaluator\.ann_file: {file}: image 2 .* annotation 6: {message}'):
        adapter.check_metric(masks, meta, 'val_evaluator', file)


def test_masks_that_are_browsed(coco, tmp_path):
    pytest.importorskip('mmdet')
    file = coco({'size': [HEIGHT, WIDTH], 'counts': [100, 200]})
    load = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
    data = dict(type='CocoDataset', ann_file=file, metainfo={'classes': ('thing',)}, data_prefix={'img': ''})
    (tmp_path / 'c.py').write_text(
        "default_scope = 'mmdet'\nmodel = dict(type='MaskRCNN')\nvisualizer = dict(type='DetLocalVisualizer')\n"
        f'train_dataloader = dict(dataset=dict(**{data}, pipeline=[{load}]))\n'
    )
    with pytest.raises(DatasetError, match=r'^train_dataloader\.dataset: .*annotation 6: the runs have 300 pixels'):
        apis.browse(apis.load_config(tmp_path / 'c.py'))


def test_annotations_without_an_image(coco):
    """Nobody reads them."""
    file = coco([[1, 2, 3, 4]])
    changed(file, dict(image_id=7), 1)
    pytest.importorskip('mmdet')
    metric = METRICS.build(dict(type='mmdet.CocoMetric', ann_file=file, metric='segm'))
    adapter_of('mmdet').check_metric(metric, {'classes': ('thing',)}, 'val_evaluator', file)


@pytest.mark.parametrize('field', ['area', 'bbox', 'iscrowd'])
def test_what_a_metric_of_boxes_needs(coco, field):
    file = coco(SQUARE, **{field: None})
    pytest.importorskip('mmdet')
    metric = METRICS.build(dict(type='mmdet.CocoMetric', ann_file=file))
    with pytest.raises(DatasetError, match=r"^val_evaluator\.ann_file: .*annotations\[1\]: no field '" + field):
        adapter_of('mmdet').check_metric(metric, {}, 'val_evaluator', file)


LEFT_OUT = [
    (dict(bbox=[0.1, 0.1, 0.5, 0.5]), 'no box of .* is learned: all are without area, less'),
    (dict(area=0), 'no box of .* is learned'),
    (dict(bbox=[70, 4, 10, 10]), 'no box of .* is learned'),
    (dict(iscrowd=1), 'no box of .* is learned'),
    (dict(image_id='1'), r"annotations\[0\]: 'image_id' is '1', expected int"),
    (dict(image_id=7), r'annotations\[0\]: image_id 7 is not in the file'),
    (dict(category_id=7), r'annotations\[0\]: category_id 7 is not in the file'),
]  # fmt: skip


@pytest.mark.parametrize('changes, message', LEFT_OUT)
def test_boxes_of_which_none_is_left(coco, changes, message):
    file = coco(SQUARE)
    changed(file, changes, 0, 1)
    pytest.importorskip('mmdet')
    with pytest.raises(DatasetError, match=message):
        adapter_of('mmdet').check(None, masks_of(file, with_mask=False), 'd', training=True)


@pytest.mark.parametrize('changes', [dict(bbox=[10, 10, -5, -5]), dict(image_id=7), dict(category_id=7)])
def test_boxes_of_which_some_are_left_out(coco, monkeypatch, changes):
    pytest.importorskip('mmdet')
    adapter, said = adapter_of('mmdet'), []
    monkeypatch.setattr(f'{type(adapter).__module__}.print_log', lambda text, **_: said.append(text))
    adapter.check(None, masks_of(coco(SQUARE)), 'd', training=True)
    assert not said
    changed(file := coco(SQUARE), changes, 1)
    adapter.check(None, masks_of(file), 'd', training=True)
    assert said and said[0].startswith(f'd: mmdet leaves out 1 of the 2 boxes of {file}: without area')


def test_a_training_set_without_any_box(coco):
    file = coco(SQUARE)
    Path(file).write_text(json.dumps({**json.loads(Path(file).read_text()), 'annotations': []}))
    pytest.importorskip('mmdet')
    adapter, empty = adapter_of('mmdet'), masks_of(file)
    with pytest.raises(DatasetError, match=r'^d: no image has a box of any class: there is nothing to learn$'):
        adapter.check(None, empty, 'd', training=True)
    adapter.check(None, empty, 'd', training=False)
    adapter.check(None, ConcatDataset([empty, masks_of(coco(SQUARE))]), 'd', training=True)  # images of background


def test_a_training_set_without_anybody(coco):
    file = coco(SQUARE)
    Path(file).write_text(json.dumps({**json.loads(Path(file).read_text()), 'annotations': []}))
    pytest.importorskip('mmpose')
    adapter = adapter_of('mmpose')
    empty = dict(type='icconv_mm.BottomupCocoDataset', ann_file=file, keep_empty=True, data_prefix={'img': ''})
    with pytest.raises(DatasetError, match=r'^d: no image has a person with a keypoint: there is nothing to learn$'):
        adapter.check(None, DATASETS.build(empty), 'd', training=True)


@pytest.mark.parametrize('kind', ['mmpose.CocoDataset', 'icconv_mm.BottomupCocoDataset'])
@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(keypoints=[9, 9, 0] * 17), 'none of the 2 people of .*a.json has a keypoint to learn'),
        (dict(keypoints=[99, 9, 2] * 17), 'none of the 2 people .* inside its image'),
        (dict(keypoints=[0.9, 0.1, 2] * 17), 'has a keypoint to learn: .* in its pixels'),
        (dict(id=5), '2 annotations have the id 5'),
        ({}, None),
    ],
)  # fmt: skip
def test_people_of_whom_nobody_is_left(coco, kind, changes, message):
    if kind.startswith('mmpose') and changes.get('keypoints', [0])[0] == 99:
        message = None  # of this dataset nobody knows the sizes of the images
    file = coco(SQUARE)
    changed(file, dict(keypoints=[9, 9, 2] * 17, num_keypoints=17), 0, 1)
    changed(file, changes, 0, 1)
    pytest.importorskip('mmpose')
    adapter = adapter_of('mmpose')
    with pytest.raises(DatasetError, match=message) if message else nullcontext():
        dataset = DATASETS.build(dict(type=kind, ann_file=file, data_mode='bottomup', data_prefix={'img': ''}))
        adapter.check(None, dataset, 'd', training=False)


# --- several tasks


@pytest.fixture
def joint(coco, maps):
    """The config of a network for boxes and classes of pixels, and of its data."""
    pytest.importorskip('mmdet')

    def build(segmentation=SQUARE, *labels, **settings):
        data = dict(
            type='icconv_mm.MultiTaskDataset',
            datasets=dict(
                boxes=dict(type='mmdet.CocoDataset', ann_file=coco(segmentation), metainfo={'classes': ('thing',)}),
                stuff=maps(*labels or (SQUARES, SQUARES), **settings),
            ),
            pipeline=[
                dict(
                    type='icconv_mm.LoadTaskAnnotations',
                    boxes=dict(type='mmdet.LoadAnnotations', with_mask=True),
                    stuff=dict(type='mmseg.LoadAnnotations'),
                )
            ],
        )
        data['datasets']['boxes']['data_prefix'] = {'img': data['datasets']['stuff']['data_prefix']['img_path']}
        head = dict(type='FCNHead', num_classes=3)
        tasks = dict(boxes=dict(type='mmdet.RetinaNet'), stuff=dict(type='mmseg.EncoderDecoder', decode_head=head))
        return ConfigDict(model=dict(tasks=tasks), train_dataloader=dict(dataset=data))

    return build


def checked(cfg):
    _, adapter = scope_and_adapter(cfg)
    adapter.prepare_loaders(datasets_of(cfg), cfg.get('model') or {})
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    adapter.check(None, dataset, 'd', training=True)
    return dataset


def test_labels_of_several_tasks(joint):
    checked(joint())
    with pytest.raises(DatasetError, match=r'^d\.datasets\.boxes: .* annotation 6: the first polygon has 2 points'):
        checked(joint([[1, 2, 3, 4]]))
    with pytest.raises(DatasetError, match=r'^d\.datasets\.stuff: .*1\.png: label 2, but the 2 classes have'):
        checked(joint(SQUARE, SQUARES, SQUARES, classes=('a', 'b')))
    with pytest.raises(
        DatasetError, match=r'^d: only label 0 of the 3 classes occurs in any segmentation map beside 255'
    ):
        checked(joint(SQUARE, FOREGROUND_255, FOREGROUND_255))


def test_a_image_with_two_sets_of_labels(joint):
    cfg = joint()
    file = cfg.train_dataloader.dataset.datasets.boxes.ann_file
    with open(file) as text:
        content = json.load(text)
    content['images'][1]['file_name'] = '1.jpg'
    with open(file, 'w') as text:
        json.dump(content, text)
    with pytest.raises(InputError, match=r'datasets\.boxes: two entries for .*1\.jpg, of ids 1 and 2'):
        DATASETS.build(cfg.train_dataloader.dataset)


# --- segmentation maps

SQUARES = np.kron(np.array([[0, 1], [2, 255]], np.uint8), np.ones((HEIGHT // 2, WIDTH // 2), np.uint8))
FOREGROUND_255 = np.where(SQUARES == 0, 0, 255).astype(np.uint8)


@pytest.fixture
def maps(tmp_path):
    """Writes images with segmentation maps, numbered from 1; gives the config of the dataset."""
    pytest.importorskip('mmseg')

    def written(*labels, classes=('a', 'b', 'c'), **settings) -> ConfigDict:
        for folder in ('img', 'lab'):
            (tmp_path / folder).mkdir(exist_ok=True)
        for i, seg_map in enumerate(labels, 1):
            cv2.imwrite(str(tmp_path / f'img/{i}.jpg'), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
            cv2.imwrite(str(tmp_path / f'lab/{i}.png'), seg_map)
        prefix = dict(img_path=str(tmp_path / 'img'), seg_map_path=str(tmp_path / 'lab'))
        return ConfigDict(type='mmseg.BaseSegDataset', metainfo={'classes': classes}, data_prefix=prefix, **settings)

    return written


def semantic(dataset: dict, **head) -> ConfigDict:
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    head = dict(type='FCNHead', num_classes=len(dataset['metainfo']['classes']), **head)
    model = dict(type='mmseg.EncoderDecoder', decode_head=head)
    return ConfigDict(
        default_scope='mmseg',
        model=model,
        train_dataloader=dict(dataset={**dataset, 'pipeline': load, '_scope_': 'mmseg'}),
    )


@pytest.mark.parametrize(
    'labels, settings, message',
    [
        (SQUARES, dict(classes=('a', 'b')), r'.*1\.png: label 2, but the 2 classes have labels from 0 to 1, and 255'),
        (SQUARES, dict(reduce_zero_label=True, classes=('a',)), '.*label 2, but the 1 class has label 1, and 0 or'),
        (FOREGROUND_255, {}, 'only label 0 of the 3 classes occurs in any segmentation map beside 255, which is '),
        (np.full_like(SQUARES, 255), {}, 'none of the 3 classes occurs in any segmentation map'),
        (np.minimum(SQUARES, 1), dict(reduce_zero_label=True, classes=('a',)), 'only label 0 of the 1 classes'),
        (SQUARES, dict(seg_map_suffix='_x.png'), r"no segmentation map .*1_x\.png of .*_suffix '_x\.png'; .* '\.png' "),
    ],
)  # fmt: skip
def test_seg_maps(maps, labels, settings, message):
    with pytest.raises(DatasetError, match=f'^d: {message}'):
        checked(semantic(maps(labels, labels, **settings)))


@pytest.mark.parametrize(
    'labels, settings, head',
    [
        (SQUARES, {}, {}),
        (SQUARES.astype(np.uint16), {}, {}),
        (np.minimum(SQUARES, 2), dict(reduce_zero_label=True, classes=('a', 'b')), {}),
        (np.where(SQUARES == 255, 3, SQUARES), {}, dict(ignore_index=3)),
    ],
)
def test_good_seg_maps(maps, labels, settings, head):
    cfg = semantic(maps(labels, labels, **settings), **head)
    for _ in range(2):  # as a config, and as the one that a run has written
        dataset = checked(cfg)
    assert dataset[0]['gt_seg_map'].dtype == np.uint8


def test_two_classes_in_the_last_map_of_all(maps):
    """A rare class is looked for in all of them before anything is refused."""
    checked(semantic(maps(*[FOREGROUND_255] * 70, SQUARES)))


def test_one_class_in_all_sets_together(maps):
    cfg = semantic(maps(FOREGROUND_255))
    _, adapter = scope_and_adapter(cfg)
    adapter.prepare_loaders(datasets_of(cfg), cfg.get('model') or {})
    sets = [DATASETS.build(cfg.train_dataloader.dataset) for _ in range(2)]
    with pytest.raises(DatasetError, match=r'^d: only label 0'):
        adapter.check(None, ConcatDataset(sets), 'd', training=True)
    adapter.check(None, ConcatDataset(sets), 'd', training=False)  # such as the few of a validation


@pytest.mark.parametrize(
    'labels, message',
    [
        (np.where(SQUARES == 2, 7, SQUARES), 'label 7, but the 3 classes have labels from 0 to 2, and 255 is ignored'),
        (SQUARES[:, :-1], 'the segmentation map has 63 x 40 pixels, but its image 64 x 40'),
    ],
)
def test_a_map_that_is_read_later(maps, labels, message, tmp_path):
    """One that the sample before training did not show."""
    dataset = checked(semantic(maps(SQUARES, SQUARES)))
    cv2.imwrite(str(tmp_path / 'lab/2.png'), labels)
    assert dataset[0] is not None
    with pytest.raises(ImageFileError, match=rf'lab/2\.png: {message}'):
        dataset[1]


def test_images_of_another_suffix(maps, tmp_path):
    cfg = maps(SQUARES, img_suffix='.png')
    with pytest.raises(
        DatasetError, match=r"^d: no file in .*img ends in '\.png', its img_suffix; the folder has '\.jpg' \(1 files"
    ):
        adapter_of('mmseg').explain_data(cfg, 'd', empty=True)


# --- levels and copies


def test_strides_below_a_neck_of_this_package():
    """FPN that starts at the second stage gives strides from 8, whatever stands behind it."""
    pytest.importorskip('mmdet')
    adapter = adapter_of('mmdet')

    def check(start_level, strides, featmap=None):
        fpn = dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5, start_level=start_level)
        pconv = dict(type='icconv_mm.PConv', in_channels=8, out_channels=8, num_outs=5, pconv_num=1)
        anchors = dict(type='AnchorGenerator', scales=[8], ratios=[1.0], strides=strides)
        rpn = dict(type='RPNHead', in_channels=8, feat_channels=8, anchor_generator=anchors)
        align = dict(type='RoIAlign', output_size=7)
        extractor = dict(
            type='SingleRoIExtractor', roi_layer=align, out_channels=8, featmap_strides=featmap or strides[:4]
        )
        box = dict(type='Shared2FCBBoxHead', in_channels=8, fc_out_channels=8, roi_feat_size=7, num_classes=3)
        roi = dict(type='StandardRoIHead', bbox_roi_extractor=extractor, bbox_head=box)
        model = MODELS.build(
            ConfigDict(
                type='FasterRCNN', neck=[fpn, pconv], rpn_head=rpn, roi_head=roi, train_cfg=None,
                test_cfg=dict(rpn={}, rcnn={}),
                backbone=dict(type='icconv_mm.ICResNet', depth=18, pattern='dense', base_channels=8), _scope_='mmdet',
            )
        )  # fmt: skip
        adapter.check_model(model, SimpleNamespace(metainfo={}), 'd', training=True)

    check(0, [4, 8, 16, 32, 64])
    check(1, [8, 16, 32, 64, 128])
    said = 'priors are 4, 8, 16, 32, 64, but model.neck gives 5 levels of .* and of strides 8, 16, 32, 64, 128$'
    with pytest.raises(InputError, match=r'^model\.rpn_head: the strides of its ' + said):
        check(1, [4, 8, 16, 32, 64])
    with pytest.raises(InputError, match=r'^model\.roi_head\.bbox_roi_extractor: featmap_strides are 4, 8, 16, 32'):
        check(1, [8, 16, 32, 64, 128], [4, 8, 16, 32])


def test_masks_of_augmented_copies(repo):
    pytest.importorskip('mmdet')
    from mmengine.config import Config

    cfg = Config.fromfile(repo / 'configs/instance_segmentation/mask-rcnn_ic-r18_fpn_miniature.py')
    with pytest.raises(
        NotSupportedError, match=r'^tta: .*miniature\.py: DetTTAModel merges boxes, not the masks of mask'
    ):
        adapter_of('mmdet').enable_tta(cfg)
    cfg.model.panoptic_head = cfg.model.roi_head.pop('mask_head')
    with pytest.raises(NotSupportedError, match='not the masks of panoptic_head'):
        adapter_of('mmdet').enable_tta(cfg)
