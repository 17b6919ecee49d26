"""Configs for images as they lie: what is chosen from the data, and what is written."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import labelled
import numpy as np
import pytest
from drawn_sets import edited
from mmengine.config import Config

from icconv_mm.app.adapters.libraries import adapter_of
from icconv_mm.app.training import memory, own_backbone, own_data_text
from icconv_mm.app.training.budget import Budget
from icconv_mm.app.training.image_size import default_size, training_size
from icconv_mm.app.training.own_data import LIBRARY, config_for
from icconv_mm.app.training.own_data_text import Choices, anchors, class_weights, crop_of, written_choices
from icconv_mm.config_tree import walk_dicts
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.errors import ArgumentError
from icconv_mm.layers import ICConv2d
from icconv_mm_runtime.drawing import palette

QUICK = dict(backbone='ic_resnet18', pretrained='none', say=lambda line: None)


@pytest.mark.parametrize(
    ('task', 'write', 'library', 'best'),
    [
        ('detection', labelled.voc, 'mmdet', 'coco/bbox_mAP'),
        ('instance', labelled.masks, 'mmdet', 'coco/segm_mAP'),
        ('semantic', labelled.seg_maps, 'mmseg', 'mIoU'),
        ('pose', labelled.deeplabcut, 'mmpose', 'coco/AP'),
        ('classification', labelled.folders, 'mmpretrain', 'accuracy/top1'),
    ],
)
def test_a_config_for_each_task(tmp_path, task, write, library, best):
    """It says what was asked for, keeps the best, and its data sets are there and of its length."""
    from mmengine.registry import DATASETS, init_default_scope

    data = write(tmp_path / 'data')
    cfg = config_for(data, task, size=64, epochs=7, work_dir=tmp_path / 'run', patience=3, **QUICK)
    falling = cfg.param_scheduler[-1]
    assert cfg.train_cfg.max_epochs == falling.begin + falling.T_max == 7 and cfg.default_scope == library
    assert cfg.default_hooks.checkpoint.save_best == best == cfg.custom_hooks[0].monitor
    assert cfg.custom_hooks[0].patience == 3
    assert cfg.custom_hooks[0].min_delta == 0  # mmengine's 0.1 would be ten points of AP
    again = config_for(data, task, epochs=9, work_dir=tmp_path / 'run', resume=True, **QUICK)
    assert (again.get('size'), again.get('shape')) == (cfg.get('size'), cfg.get('shape'))
    init_default_scope(library)
    lengths = [len(DATASETS.build(cfg[f'{phase}_dataloader'].dataset)) for phase in ('train', 'val')]
    assert lengths == ([6, 2] if task == 'classification' else [2, 1])


def test_a_config_of_an_earlier_version(tmp_path):
    """It has its choices in its text: a training goes on with them; an edited one is not written again."""
    options = dict(work_dir=tmp_path / 'run', **QUICK)
    cfg = config_for(labelled.voc(tmp_path / 'data'), 'detection', size=96, epochs=7, **options)
    file, beside = Path(cfg.filename), tmp_path / 'run.choices.json'
    images = '.folder_of_images(annotations)\n'
    text = file.read_text().replace(images, f'{images}# backbone: ic_resnet18\n')
    for is_edited in (False, True):
        head = f'# sha256 of the rest: {hashlib.sha256(text.encode()).hexdigest()}\n'
        file.write_text(head + text + is_edited * '# mine\n')
        beside.unlink()
        choices = written_choices(file)
        assert choices == dict(
            backbone='ic_resnet18', size=96, epochs=7, batch=cfg.batch_size, annotations=Path(cfg.annotations).name,
            data=None, weights=None, load_from=None, is_unedited=not is_edited,
        )  # fmt: skip
        if not is_edited:
            again = config_for(tmp_path / 'data', 'detection', epochs=9, resume=True, **options)
            assert (again.size, again.batch_size, again.epochs) == (96, cfg.batch_size, 9) and beside.is_file()
    with pytest.raises(ArgumentError, match='has been edited'):
        config_for(tmp_path / 'data', 'detection', **options)


@pytest.mark.parametrize('is_linked', [False, True])
def test_a_run_that_moves_with_its_data_is_gone_on_with(tmp_path, monkeypatch, is_linked):
    """By the folder of the images again; a run that moves alone is of other images."""
    here = tmp_path / 'here'
    here.mkdir()
    data = labelled.voc(tmp_path / 'real' if is_linked else here / 'data')
    if is_linked:
        (here / 'data').symlink_to(data)
    monkeypatch.chdir(here)
    cfg = config_for('data', 'detection', size=64, epochs=7, **QUICK)
    shutil.copytree(here, tmp_path / 'there', symlinks=True)
    monkeypatch.chdir(tmp_path / 'there')
    again = config_for('data', 'detection', epochs=9, resume=True, **QUICK)
    assert (again.size, again.batch_size, again.epochs) == (64, cfg.batch_size, 9)
    assert (tmp_path / 'there' / again.filename).read_text().count('epochs = 9') == 1
    if is_linked:  # to data that have moved as well
        data.rename(tmp_path / 'moved')
        Path('data').unlink()
        Path('data').symlink_to(tmp_path / 'moved')
    images = Path(Config.fromfile(again.filename).images)
    assert images.is_relative_to(tmp_path / 'there') and images.samefile('data/JPEGImages')
    shutil.copytree(here / 'work_dirs', tmp_path / 'work_dirs')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=r'is of .*here/data, not of .*there/data'):
        config_for('there/data', 'detection', work_dir='work_dirs/data_detection', resume=True, **QUICK)


@pytest.mark.parametrize('content', ['', '[]', '{"batch": "x", "sha256": 3}', '[' * 5000])
def test_damaged_choices_are_those_of_an_edited_config(tmp_path, content):
    options = dict(work_dir=tmp_path / 'run', **QUICK)
    config_for(labelled.voc(tmp_path / 'data'), 'detection', size=64, epochs=7, **options)
    (tmp_path / 'run.choices.json').write_text(content)
    with pytest.raises(ArgumentError, match='has been edited'):
        config_for(tmp_path / 'data', 'detection', **options)


@pytest.mark.parametrize(
    ('write', 'expected'),
    [
        (labelled.yolo, 'detection'),
        (labelled.seg_maps, 'semantic'),
        (labelled.folders, 'classification'),
        (labelled.masks, 'there are annotations for detection and instance: choose one, or all'),
        (labelled.deeplabcut, 'pose'),
    ],
)
def test_the_only_annotated_task_is_learned(tmp_path, monkeypatch, write, expected):
    monkeypatch.chdir(tmp_path)  # the folder is named after the task
    data = write(tmp_path / 'data')
    if expected not in LIBRARY:
        with pytest.raises(ArgumentError, match=expected):
            config_for(data, **QUICK)
        return
    assert Path(config_for(data, **QUICK).filename).name == f'data_{expected}.py'


@pytest.mark.parametrize('task', ['detection', 'instance', 'semantic', 'pose'])
def test_a_small_network_is_the_default_on_a_cpu(tmp_path, monkeypatch, task):
    """Its parts follow its width; who has a GPU gets a large one."""
    from mmengine.registry import MODELS, init_default_scope

    monkeypatch.setattr(own_backbone, 'get_device', lambda: 'cpu')
    write = {'semantic': labelled.seg_maps, 'pose': labelled.deeplabcut}.get(task, labelled.masks)
    options = dict(QUICK, backbone=None)
    data = write(tmp_path / 'data')
    cfg = config_for(data, task, work_dir=tmp_path / 'run', size=64, epochs=1, **options)
    assert cfg.model.backbone.base_channels == 24 and cfg.levels == [24, 48, 96, 192] and cfg.width == 48
    init_default_scope(LIBRARY[task])
    model = MODELS.build(cfg.model)
    assert 1.5e6 < sum(parameter.numel() for parameter in model.parameters()) < 3e6
    layers = [module for module in model.modules() if isinstance(module, ICConv2d)]
    assert layers and all(layer.exported_convolutions == len(layer.pattern) <= 4 for layer in layers), 'whole blocks'
    monkeypatch.setattr(own_backbone, 'get_device', lambda: 'cuda')
    again = config_for(data, task, work_dir=tmp_path / 'run', size=64, epochs=2, **options)
    assert again.model.backbone.base_channels == 24, 'a config that is there keeps its backbone'
    other = config_for(data, task, work_dir=tmp_path / 'other', size=64, epochs=1, **options)
    assert other.model.backbone.depth == 50


def test_a_time_chooses_the_length(tmp_path, monkeypatch):
    """Of two images with a second each; a training that goes on keeps the length of its config."""
    monkeypatch.setattr(memory, 'training_times', lambda network, *shapes: [1.0 for _ in shapes])
    data, time = labelled.voc(tmp_path / 'data'), Budget('1m', clock=lambda: 0.0)
    assert config_for(data, size=64, epochs=time, work_dir=tmp_path / 'run', **QUICK).epochs == 24
    assert config_for(data, epochs='10h', work_dir=tmp_path / 'run', resume=True, **QUICK).epochs == 24
    monkeypatch.setattr(memory, 'training_times', lambda network, *shapes: None)
    assert config_for(data, size=64, epochs=time, work_dir=tmp_path / 'gpu', **QUICK).epochs == 300


@pytest.mark.parametrize(
    ('backbone', 'task', 'count', 'proposals', 'detections'),
    [
        ('small', 'detection', 4, 100, 100),
        ('small', 'detection', 150, 450, 225),
        ('small_s8', 'detection', 150, 300, 225),
        ('ic_resnet18', 'detection', 150, 500, 225),
        ('small', 'detection', 400, 1000, 600),
        ('small', 'all', 150, 1000, 225),
    ],
)
def test_a_crowded_image_keeps_its_objects(tmp_path, backbone, task, count, proposals, detections):
    """mmdet's own limit, 100 boxes of an image, would leave out a third of 150 objects."""
    data = labelled.yolo(tmp_path / 'data')
    crowded = '\n'.join(f'2 {0.1 + 0.8 * number / count} 0.5 0.1 0.2' for number in range(count))
    (data / 'labels' / 'train' / 'p0.txt').write_text(crowded)
    cfg = config_for(data, task, work_dir=tmp_path / 'run', size=64, epochs=1, **dict(QUICK, backbone=backbone))
    tests = cfg.model.tasks.detection.test_cfg if task == 'all' else cfg.model.test_cfg
    assert (tests.rpn.max_per_img, tests.rcnn.max_per_img) == (proposals, detections)


@pytest.mark.parametrize(
    ('kind', 'task', 'expected'), [('boxes', 'detection', 'soft_nms'), ('segmentations', 'instance', 'nms')]
)
def test_boxes_alone_are_suppressed_softly(tmp_path, kind, task, expected):
    cfg = config_for(
        labelled.yolo(tmp_path / 'data', kind), task, work_dir=tmp_path / 'run', size=64, epochs=1, **QUICK
    )
    assert cfg.model.test_cfg.rcnn.nms == dict(type=expected, iou_threshold=0.5)


def test_flipped_images_are_merged_as_the_model_suppresses(tmp_path):
    """mmdet's tool would cut a crowded image at 100 boxes, and lose what a soft suppression gains."""
    cfg = config_for(
        labelled.yolo(tmp_path / 'data'), 'detection', work_dir=tmp_path / 'run', size=64, epochs=1, **QUICK
    )
    cfg.model.test_cfg.rcnn.max_per_img = 225
    adapter_of('mmdet').enable_tta(cfg)
    soft = dict(type='soft_nms', iou_threshold=0.5)
    assert cfg.tta_model == dict(type='DetTTAModel', tta_cfg=dict(nms=soft, max_per_img=225))


@pytest.mark.parametrize(('first', 'expected'), [(None, [4, 6, 20, 16]), (0, [5, 7, 19, 15])])
def test_a_config_of_boxes_that_count_from_zero(tmp_path, first, expected):
    """The user's word reaches the annotations; else what the set says is printed."""
    said = []
    data = labelled.voc(tmp_path / 'data')
    options = dict(QUICK, say=said.append, epochs=1, voc_from=first)
    cfg = config_for(data, 'detection', work_dir=tmp_path / 'run', **options)
    content = json.loads(Path(cfg.train_dataloader.dataset.ann_file).read_text())
    assert content['annotations'][0]['bbox'] == expected
    assert any('boxes count pixels from 1: as in Pascal VOC' in line for line in said) == (first is None)


@pytest.mark.parametrize(
    ('count', 'size', 'is_dropped'), [(5, 32, True), (4, 32, False), (5, 320, False), (1, 32, False)]
)
def test_a_last_batch_of_one_small_image_is_left_out(count, size, is_dropped):
    """Batch norm learns nothing of one pixel; of a set of one image nothing would be left."""
    chosen = Choices('detection', 1, size, (size, size), {}, 64, False, 2, 0.1, None, None, '')
    converted = SimpleNamespace(splits=dict(train=count), boxes=np.zeros((0, 2)), most=0, flip_pairs=None, files={})
    numbers = {name: value for name, value, _ in own_data_text._numbers(chosen, dict(detection=converted))}
    assert numbers['drop_last'] == is_dropped


def test_a_small_batch_is_explained(tmp_path):
    said = []
    options = dict(QUICK, say=said.append, epochs=1)
    config_for(labelled.yolo(tmp_path / 'data'), 'detection', work_dir=tmp_path / 'run', **options)
    assert 'batches of 2 instead of 8, for more steps' in said[-1]


def test_a_config_that_was_edited_is_kept(tmp_path):
    data = labelled.yolo(tmp_path / 'data')
    path = config_for(data, 'detection', epochs=1, work_dir=tmp_path / 'run', **QUICK).filename
    assert config_for(data, 'detection', epochs=2, work_dir=tmp_path / 'run', **QUICK).epochs == 2
    with open(path, 'a') as file:
        file.write('epochs = 5\n')
    with pytest.raises(
        ArgumentError, match=r'work_dir: .*run\.py has been edited, or is of a former version: train it by its name'
    ):
        config_for(data, 'detection', epochs=1, work_dir=tmp_path / 'run', **QUICK)


def test_classes_in_the_order_that_is_asked_for(tmp_path):
    data, run = labelled.yolo(tmp_path / 'data'), tmp_path / 'run'
    assert _lines(config_for(data, 'detection', work_dir=run, classes=['dog'], **QUICK).classes) == ['dog']
    assert _lines(config_for(data, 'detection', work_dir=run, classes=['dog', 'cat'], **QUICK).classes) == [
        'dog',
        'cat',
    ]


def test_sizes_and_anchors_are_those_of_the_data():
    sizes = np.array([[640, 480]] * 9 + [[100, 100]])
    large, small = np.full((50, 2), 0.3), np.full((50, 2), 0.012)
    assert default_size(sizes, large, 'detection') == 640 and training_size(sizes, 640) == (640, 480)
    assert default_size(2 * sizes, large, 'detection') == 640 and default_size(2 * sizes, small, 'detection') == 864
    assert default_size(sizes // 8, large, 'detection') == 128 and default_size(sizes, large, 'classification') == 224
    assert training_size(sizes[:, ::-1], 300) == (256, 320)
    assert crop_of((480, 384)) == (320, 256) and crop_of((640, 128)) == (416, 128)
    assert anchors(large, 640)['scales'] == [8] and anchors(small, 640)['scales'] == [2]
    thin = np.stack([np.full(50, 0.3), np.full(50, 0.04)], 1)
    assert anchors(thin, 640)['ratios'][0] == 0.13 and anchors(thin[:, ::-1], 640)['ratios'][-1] == 7.5


def test_rare_classes_count_more():
    shares = [0.6, 0.35, 0.05]
    weights = class_weights(shares)
    assert weights == sorted(weights) and sum(s * w for s, w in zip(shares, weights)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize('task', ['detection', 'instance', 'semantic', 'pose', 'all'])
def test_a_third_split_is_what_is_tested(tmp_path, task):
    """One of the two images for training becomes that of the test: of data set and metric, alone or with others."""
    annotations = labelled.coco(tmp_path / 'data' / 'objects')
    people = labelled.coco(tmp_path / 'data' / 'people', 'keypoints')
    for folder in (annotations, people):
        labels = json.loads((folder / 'train.json').read_text())
        for split, image in zip(('train', 'test'), labels['images']):
            entries = [entry for entry in labels['annotations'] if entry['image_id'] == image['id']]
            (folder / f'{split}.json').write_text(json.dumps(dict(labels, images=[image], annotations=entries)))
    maps = labelled.seg_maps(tmp_path / 'data' / 'maps')
    for end in ('', 'annot'):
        (maps / f'test{end}').mkdir()
        (maps / f'train{end}' / 'p1.png').rename(maps / f'test{end}' / 'p1.png')
    location = {'semantic': maps, 'pose': people, 'all': tmp_path / 'data'}.get(task, annotations)
    cfg = config_for(location, task, size=64, epochs=1, work_dir=tmp_path / 'run', **QUICK)
    for split in ('val', 'test'):
        nodes = walk_dicts([cfg[f'{split}_dataloader'], cfg[f'{split}_evaluator']])
        files = [node.ann_file for node in nodes if 'ann_file' in node]
        assert len(files) == dict(semantic=1, all=5).get(task, 2)
        assert all(path.endswith(f'_{split}.json') for path in files), files


@pytest.mark.parametrize(
    ('task', 'write'),
    [
        ('detection', labelled.voc),
        ('semantic', labelled.seg_maps),
        ('semantic', lambda root: labelled.seg_maps(root, ignore_index=255)),  # the user's own maps are read
        ('pose', labelled.deeplabcut),
        ('classification', labelled.folders),
        ('all', labelled.masks),
    ],
)
def test_config_and_images_move_together_or_the_config_alone(tmp_path, task, write):
    before = tmp_path / 'before'
    cfg = config_for(write(before / 'da{{ta'), task, size=64, epochs=1, work_dir=before / 'runs' / 'own', **QUICK)
    annotations = next(Path(cfg.annotations).glob(f'{"*" if task == "all" else task}_train.*'))
    assert str(before) not in annotations.read_text()
    alone = shutil.copytree(before / 'runs', tmp_path / 'alone' / 'runs')
    assert _places(alone / 'own.py') == {before}
    after = before.rename(tmp_path / 'after')
    assert _places(after / 'runs' / 'own.py') == {after}


def _places(config):
    """Which of two projects the images of a config and their segmentation maps are in; all are files."""
    cfg = Config.fromfile(config)
    dataset = _build(cfg, 'train')
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    paths = [Path(info[key]) for info in infos for key in ('img_path', 'seg_map_path') if info.get(key)]
    paths = [path for path in paths if 'maps' not in path.parts]  # written beside the annotations
    assert paths and all(path.is_file() for path in paths)
    return {Path(*path.parts[: len(config.parents[1].parts)]) for path in paths}


def test_colors_of_a_table_are_drawn(tmp_path):
    """In whatever order the classes are learned; a class without one has a colour of ours."""
    data = labelled.seg_maps(tmp_path / 'data', 'colors')
    options = dict(size=64, epochs=1, **QUICK)
    cfg = config_for(data, 'semantic', work_dir=tmp_path / 'run', classes=['dog', 'background', 'cat'], **options)
    colors = [(0, 0, 200), (0, 0, 0), (200, 0, 0)]
    assert [tuple(color) for color in cfg.palette] == colors
    assert [tuple(color) for color in _build(cfg, 'val').metainfo['palette']] == colors
    plain = config_for(labelled.seg_maps(tmp_path / 'plain'), 'semantic', work_dir=tmp_path / 'other', **options)
    assert [tuple(color) for color in plain.palette] == palette(plain.num_classes)


def _lines(path):
    return Path(path).read_text().splitlines()


def _build(cfg, phase):
    from mmengine.registry import DATASETS, init_default_scope

    init_default_scope(cfg.default_scope)
    return DATASETS.build(cfg[f'{phase}_dataloader'].dataset)


def _images(cfg, *parts):
    """The names in annotation files, by task and split."""
    named = {part: json.loads(Path(cfg.annotations, f'{part}.json').read_text())['images'] for part in parts}
    return [{Path(image['file_name']).stem for image in images} for images in named.values()]


def _maps_and_poses(root, splits=('train', 'train', 'train', 'val', 'val', 'test'), posed=range(4)):
    """Images in ``images/SPLIT`` with maps in ``masks/SPLIT``, and ``a/pose.json`` of some, which says no split."""
    from PIL import Image

    images, annotations = [], []
    for number, split in enumerate(splits):
        for folder in ('images', 'masks'):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        path = root / 'images' / split / f'p{number}.png'
        Image.fromarray(np.full((48, 64, 3), number, dtype=np.uint8)).save(path)
        Image.fromarray(np.repeat([0, 1], 32)[None].repeat(48, 0).astype('u1')).save(root / 'masks' / split / path.name)
        if number in posed:
            images.append(dict(id=number, file_name=str(path), width=64, height=48))
            entry = dict(id=number + 1, image_id=number, category_id=1, bbox=[5, 5, 30, 30], area=900, iscrowd=0)
            annotations.append(dict(entry, keypoints=[10, 10, 2, 30, 30, 2], num_keypoints=2))
    categories = [dict(id=1, name='mouse', keypoints=['snout', 'tail'], skeleton=[])]
    (root / 'a').mkdir()
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'a' / 'pose.json').write_text(json.dumps(content))
    return root


@pytest.mark.parametrize('posed', [[0, 1, 2], [0, 2, 3]])
def test_a_image_has_one_split_and_tasks_are_evaluated_where_they_have_labels(tmp_path, posed):
    """That of the folders, though the file of poses, which comes first, says none; no image of poses is for tests."""
    said, options = [], dict(size=64, epochs=1, work_dir=tmp_path / 'run')
    data = _maps_and_poses(tmp_path / 'data', posed=posed)
    cfg = config_for(data, 'all', **options, **dict(QUICK, say=said.append))
    assert _images(cfg, 'semantic_train', 'semantic_val') == [{'p0', 'p1', 'p2'}, {'p3', 'p4'}]
    is_validated = 3 in posed
    expected = {
        'train': ['detection', 'semantic', 'pose'],
        'val': ['detection', 'semantic', 'pose'],
        'test': ['semantic'],
    }
    if not is_validated:
        expected['val'] = ['semantic']
    for split, tasks in expected.items():
        dataset = _build(cfg, split)
        assert sorted(dataset.metainfo) == sorted(tasks) and len(dataset) == dict(train=3, val=2, test=1)[split]
        if split != 'train':
            assert sorted(metric.task for metric in cfg[f'{split}_evaluator']) == sorted(tasks)
    assert cfg.default_hooks.checkpoint.save_best == ('detection/coco/bbox_mAP' if is_validated else 'semantic/mIoU')
    absent = 'test' if is_validated else 'val or test'
    assert f'  no annotations for pose in the split {absent}: not evaluated there' in said


def test_splits_that_contradict_each_other_are_reported(tmp_path):
    data = _maps_and_poses(tmp_path / 'data')
    (data / 'a' / 'pose.json').rename(data / 'a' / 'pose_train.json')
    said = []
    config_for(data, 'all', size=64, epochs=1, work_dir=tmp_path / 'run', **dict(QUICK, say=said.append))
    assert any(line.startswith('1 images have two splits') and 'p3.png: train, not val' in line for line in said)


@pytest.mark.parametrize('more_people', [False, True])
def test_people_beside_objects_of_another_file(tmp_path, more_people):
    """All classes of objects are learned; joined sets need as many objects as people, as their numbers are compared."""
    from icconv_mm.app.adapters.multitask_checks import check_people_are_instances

    root = labelled.coco(tmp_path / 'data', 'keypoints')
    for split in ('train', 'val'):
        with edited(root / f'{split}.json') as content:
            (root / f'people_{split}.json').write_text(json.dumps(content))
            for entry in content['annotations']:
                entry['segmentation'] = [labelled.polygon(*entry['bbox'])]
                del entry['keypoints']
            for category in content['categories']:
                del category['keypoints'], category['skeleton']
            content['annotations'] = content['annotations'][: 1 if more_people else None]
            content['categories'].append(dict(id=99, name='car'))
    cfg = config_for(root, 'all', size=64, epochs=1, work_dir=tmp_path / 'run', **QUICK)
    assert list(cfg.model.tasks) == ['instance', 'pose'] and _lines(cfg.classes) == ['cat', 'dog', 'car']
    assert cfg.same_images.train == ([['instance'], ['pose']] if more_people else [['instance', 'pose']])
    for dataset in _build(cfg, 'train').datasets:
        check_people_are_instances(dataset, 'train')


def test_sets_and_names_that_are_not_used_are_reported(tmp_path):
    """Of several datasets one is used, boxes only without masks; names are for one task or segmentation maps."""
    cars, cells = labelled.yolo(tmp_path / 'cars'), labelled.coco(tmp_path / 'cells')
    labelled.seg_maps(tmp_path / 'maps', ignore_index=255)
    for number, (task, locations) in enumerate(
        {'all': [cars, cells], 'instance': [cells], 'detection': [cells, cars]}.items()
    ):
        said = []
        config_for(locations, task, work_dir=tmp_path / f'run{number}', **dict(QUICK, say=said.append))
        expected = {
            'all': [f'{cars}/data.yaml: YOLO: detection not learned from it, but from {cells}'],
            'detection': [f'{cells}: COCO: detection not learned from it, but from {cars}/data.yaml'],
        }
        assert [line for line in said if 'not learned' in line] == expected.get(task, [])
    people = labelled.coco(tmp_path / 'people', 'keypoints')
    with pytest.raises(
        ArgumentError, match='classes: instance and pose are learned together: name those of segmentation'
    ):
        config_for([cells, people], 'all', work_dir=tmp_path / 'named', classes=['cat'], **QUICK)
    names = ['background', 'cat', 'dog']
    cfg = config_for([cells, tmp_path / 'maps'], 'all', work_dir=tmp_path / 'maps_run', classes=names, **QUICK)
    assert _lines(cfg.classes_semantic) == names


@pytest.mark.parametrize(('task', 'flips'), [('pose', [1, 0, 2]), ('pose', None), ('all', None)])
def test_images_are_flipped_where_the_pairs_are_known(tmp_path, task, flips):
    import yaml

    root = labelled.yolo(tmp_path / 'data', 'keypoints')
    content = yaml.safe_load((root / 'data.yaml').read_text())
    (root / 'data.yaml').write_text(yaml.safe_dump(dict(content, flip_idx=flips)))
    cfg = config_for(root, task, work_dir=tmp_path / 'run', **QUICK)
    nodes = walk_dicts(cfg.train_dataloader)
    assert [node.prob for node in nodes if 'RandomFlip' in str(node.get('type'))] == [0.5 if flips else 0.0]
    assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size


@pytest.mark.parametrize('task', ['pose', 'all'])
def test_a_probability_of_flips_may_be_written_as_a_whole_number(tmp_path, task):
    cfg = config_for(labelled.yolo(tmp_path / 'data', 'keypoints'), task, work_dir=tmp_path / 'run', **QUICK)
    path = Path(cfg.filename)
    path.write_text(re.sub('^flip_prob = .*', 'flip_prob = 0', path.read_text(), flags=re.MULTILINE))
    nodes = walk_dicts(Config.fromfile(path).train_dataloader)
    (flip,) = [node for node in nodes if 'RandomFlip' in str(node.get('type'))]
    assert flip.prob == 0 and isinstance(flip.prob, float)  # mmcv refuses an int


def test_nothing_left_to_train_with(tmp_path):
    data = labelled.yolo(tmp_path / 'data')
    for path in (data / 'images/train').iterdir():
        path.write_bytes(b'no image')
    with pytest.raises(DatasetError, match=r'nothing is left of the split train:\n.*p0\.png'):
        config_for(data, 'detection', work_dir=tmp_path / 'run', **QUICK)


def test_a_config_of_other_images_is_kept(tmp_path, monkeypatch):
    """Files of one name in two folders are two runs; a run that is given for both is refused."""
    monkeypatch.chdir(tmp_path)
    locations = [labelled.yolo(tmp_path / name) / 'data.yaml' for name in 'ab']
    paths = [
        config_for(location.relative_to(tmp_path), 'detection', **QUICK).filename
        for location in (*locations, locations[0])
    ]
    assert paths == ['work_dirs/a_detection.py', 'work_dirs/b_detection.py', 'work_dirs/a_detection.py']
    with pytest.raises(
        ArgumentError, match=rf'work_dir: .*a_detection\.py is of {locations[0]}, not of {locations[1]}'
    ):
        config_for(locations[1], 'detection', work_dir='work_dirs/a_detection', **QUICK)


@pytest.mark.parametrize('task', ['detection', 'instance'])
def test_labels_are_drawn_where_they_are(tmp_path, task):
    """Test pipelines resize images before they load labels, which are in pixels of the file."""

    cfg = config_for(labelled.coco(tmp_path / 'data'), task, size=128, work_dir=tmp_path / 'run', **QUICK)
    adapter = adapter_of('mmdet')
    for split, size in (('val', labelled.SIZE[::-1]), ('train', None)):
        dataset = _build(cfg, split)
        adapter.check(None, dataset, split, training=False)
        content = adapter.annotations(dataset[0]['data_samples'], dataset.metainfo)
        assert content.shape == size and len(content.objects) == 2
