"""From images as they lie to a trained network, by one command and without a file that is edited."""

import json
import os
import re
import shutil
from pathlib import Path

import labelled
import pytest
import torch
from mmengine.config import Config
from workspaces import DETECTION

pytestmark = pytest.mark.slow
QUICK = ('--backbone', 'ic_resnet18', '--pretrained', 'none', '--epochs', '1')


def _train(workspace, run, *places, size=64, options=()):
    """Train by the tool; gives the folder of the run."""
    error = workspace.tool('train', *places, *QUICK, '--size', size, '--work-dir', f'runs/{run}', *options)
    assert error is None, error
    folder = workspace.root / 'runs' / run
    assert Path(f'{folder}.py').is_file() and (folder / 'last_checkpoint').is_file()
    assert (folder / 'report.html').is_file()
    return folder


@pytest.mark.parametrize(
    ('task', 'write', 'library'),
    [
        ('detection', labelled.voc, 'mmdet'),
        ('detection', labelled.yolo, 'mmdet'),
        ('instance', labelled.masks, 'mmdet'),
        ('semantic', labelled.seg_maps, 'mmseg'),
        ('pose', labelled.deeplabcut, 'mmpose'),
        ('classification', labelled.folders, 'mmpretrain'),
    ],
)
def test_one_command_for_each_task(workspace, tmp_path, task, write, library):
    """It trains, validates, keeps a checkpoint, draws curves and failures, and its config trains again by its name."""
    pytest.importorskip(library)
    data = write(tmp_path / 'data')
    run = f'{task}_{write.__name__}'
    options = ['--ignore-index', '11'] if task == 'semantic' else []
    folder = _train(workspace, run, data, options=['--task', task, *options])
    ((kind, evaluation),) = json.loads((folder / 'report.json').read_text())['tasks'].items()
    assert kind == '' and evaluation['kind'] == task and evaluation['images'] > 0
    page = (folder / 'report.html').read_text()
    assert ('Confusion matrix' in page) == (task != 'pose') and 'Next' in page
    assert all(link.startswith(('data:', '#')) for link in re.findall(r'(?:src|href)="([^"]*)', page))
    written = Config.fromfile(folder.with_suffix('.py'))
    lines = folder.with_suffix('.py').read_text().splitlines()
    long = [line for line in lines if len(line) > 120 and '/' not in line]  # paths are as long as they are
    assert len(lines) < 110 and not long
    names = {'pose': ['animal'], 'semantic': ['class_0', 'class_1', 'class_2'], 'instance': ['object']}
    text = Path(written.keypoints if task == 'pose' else written.classes).read_text()
    classes = json.loads(text)['classes'] if task == 'pose' else text.splitlines()
    assert classes == names.get(task, list(labelled.NAMES))
    assert evaluation['classes'] == classes  # else its thresholds are of other ones
    assert workspace.tool('train', folder.with_suffix('.py'), '--work-dir', folder) is None
    checkpoint = (folder / 'last_checkpoint').read_text()
    images = next(path for path in sorted(data.rglob('*.png')) if 'mask' not in str(path) and 'annot' not in str(path))
    assert workspace.tool('infer', folder.with_suffix('.py'), checkpoint, images, '--out-dir', folder / 'found') is None
    assert (folder / 'found' / 'vis' / images.name).is_file()
    (category, *_) = json.loads((folder / 'found/images.json').read_text())['categories']
    assert category.get('keypoints') == (json.loads(text)['keypoints'] if task == 'pose' else None)


@pytest.mark.parametrize('disjoint', [False, True])
def test_one_network_for_all_that_is_labelled(workspace, tmp_path, disjoint):
    """Masks and segmentation maps of the same images, or of others, and keypoints."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    pytest.importorskip('mmpose')
    data = tmp_path / 'data'
    labelled.coco(data / 'objects')
    labelled.seg_maps(data / 'maps', ignore_index=255)
    if not disjoint:
        for path in data.glob('maps/*/*.png'):
            if 'annot' not in path.parent.name:
                path.unlink()
                os.symlink(data / 'objects' / 'images' / path.name, path)
    labelled.coco(data / 'people', 'keypoints')
    folder = _train(workspace, f'all_{disjoint}', data, options=['--task', 'all'])
    written = Config.fromfile(folder.with_suffix('.py'))
    assert list(written.model.tasks) == ['instance', 'semantic', 'pose']
    assert written.train_dataloader.dataset.type.endswith('ConcatDataset')
    groups = [sorted(dataset.datasets) for dataset in written.train_dataloader.dataset.datasets]
    assert sorted(groups) == sorted(
        [['instance'], ['pose'], ['semantic']] if disjoint else [['instance', 'semantic'], ['pose']]
    )
    assert json.loads((folder / 'report.json').read_text())['tasks'].keys() == written.model.tasks.keys()


@pytest.mark.parametrize('form', ['written', 'copy'])
def test_a_run_that_was_moved(workspace, tmp_path, form):
    """The written config with its folder, or the folder alone with mmengine's copy, trains, tests, predicts, leaves.

    The data lie behind a link, and move as well.
    """
    pytest.importorskip('mmdet')
    pytest.importorskip('onnxscript')
    data = tmp_path / 'data'
    data.symlink_to(labelled.coco(tmp_path / 'real'))
    folder = _train(workspace, f'moving_{form}', data, options=['--task', 'instance'])
    moved = folder.rename(tmp_path / folder.name)
    data.unlink()
    data.symlink_to((tmp_path / 'real').rename(tmp_path / 'elsewhere'))
    config = Path(f'{folder}.py').rename(f'{moved}.py')
    if form == 'copy':
        config.unlink()
        config = moved / config.name
    checkpoint = moved / Path((moved / 'last_checkpoint').read_text()).name
    calls = (
        ('train', config, '--work-dir', tmp_path / 'again', '--cfg-options', 'train_dataloader.num_workers=0',
         'train_dataloader.persistent_workers=False'),
        ('test', config, checkpoint, '--work-dir', tmp_path / 'tested'),
        ('browse_dataset', config, '--not-show', '--out-dir', tmp_path / 'browsed'),
        ('infer', config, checkpoint, data / 'images', '--out-dir', tmp_path / 'found'),
        ('export', config, checkpoint, '--to', 'onnx', '--out', tmp_path / 'network.onnx'),
    )  # fmt: skip
    for call in calls:
        assert workspace.tool(*call) is None, call
    assert (tmp_path / 'again' / 'epoch_1.pth').is_file() and (tmp_path / 'network.onnx').is_file()
    for run in ('again', 'tested'):
        copy = Config.fromfile(tmp_path / run / config.name)
        assert Path(copy.val_ann_file).parent.parent == tmp_path / run and Path(copy.val_ann_file).is_file()


def test_weights_of_a_file(workspace, tmp_path):
    """A backbone starts from a file, whether its keys have a prefix or not."""
    from icconv_mm import create_model

    pytest.importorskip('mmdet')
    data = labelled.yolo(tmp_path / 'data')
    network = create_model('ic_resnet18', pattern='geometric_d4')
    for name, state in (('plain', network.backbone.state_dict()), ('whole', network.state_dict())):
        torch.save(state, tmp_path / f'{name}.pth')
        options = ['--task', 'detection', '--pretrained', tmp_path / f'{name}.pth']
        folder = _train(workspace, name, data, options=options)
        text = folder.with_suffix('.py').read_text()
        assert f'{name}.pth' in text and ("prefix='backbone.'" in text or "'prefix': 'backbone.'" in text) == (
            name == 'whole'
        )


def test_mistakes_are_messages(workspace, tmp_path, monkeypatch):
    data = labelled.yolo(tmp_path / 'data')
    for options, words in (
        ((labelled.masks(tmp_path / 'masks'),), '--task: there are annotations for detection and instance: choose one'),
        ((data, '--task', 'pose'), "--task: no annotations for 'pose'"),
        ((data, '--task', 'detection', '--backbone', 'ic_resnet17'), 'nothing is called ic_resnet17'),
        (
            (data, '--task', 'detection', '--backbone', 'ic_resnet18', '--classes', 'cow'),
            'no class cow; there are: cat, dog',
        ),
        (
            (data, '--task', 'detection', '--size', '8', '--pretrained', 'none'),
            '--size: expected 32 pixels or more, got 8',
        ),
        ((data, '--task', 'detection', '--iters', '3'), '--iters: the config of images counts epochs'),
        ((tmp_path / 'nothing.yaml', '--task', 'detection'), 'data: no such file'),
        ((tmp_path / 'nothing.py', '--task', 'detection'), 'config: no such file'),
        ((workspace.config(DETECTION), '--task', 'detection'), '--task: is for images without a config'),
    ):
        assert words in workspace.tool('train', *options, '--work-dir', tmp_path / 'run'), options
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert 'write it first by icconv_mm.apis.config_for(' in workspace.tool('train', data, '--task', 'detection')


REAL = [
    ('bccd_voc', 'detection', ()),
    ('nuclei', 'instance', ()),
    ('camvid', 'semantic', ('--ignore-index', '11')),
    ('openfield', 'pose', ()),
    ('coco128_yolo', 'all', ()),
    ('mmpose_samples/coco/test_coco.json', 'all', ()),
    ('mmpose_samples/ap10k', 'pose', ()),
    ('mmpose_samples/mpii/test_mpii.json', 'pose', ()),
]


@pytest.mark.parametrize(('place', 'task', 'options'), REAL)
def test_real_images(workspace, real_samples, place, task, options):
    _train(workspace, Path(place).parts[-1], real_samples / place, size=128, options=['--task', task, *options])
    shutil.rmtree(workspace.root / 'runs' / Path(place).parts[-1])


def test_videos_and_tiles(workspace, detector, tmp_path):
    """A video of the frames of a video, with numbered results; an image in tiles."""
    import json

    import cv2

    from icconv_mm.app.runs.images import Video, VideoWriter, read_image

    config = workspace.config('detection/faster-rcnn_ic-r18_fpn_miniature.py')
    images = sorted((workspace.root / 'data/miniature/val').glob('*.jpg'))
    writer = VideoWriter(tmp_path / 'street.mp4', 4)
    for image in images:
        writer.add(read_image(image))
    writer.close()
    assert (
        workspace.tool(
            'infer', config, detector, writer.path, '--out-dir', tmp_path / 'a', '--batch-size', 3, '--track'
        )
        is None
    )
    assert len(list(Video(str(tmp_path / 'a' / 'street.mp4')))) == len(images)
    about = json.loads((tmp_path / 'a' / 'images.json').read_text())
    assert [entry['id'] for entry in about['images']] == list(range(1, len(images) + 1))
    assert {'image_id', 'bbox'} <= json.loads((tmp_path / 'a' / 'predictions.json').read_text())[0].keys()
    cv2.imwrite(str(tmp_path / 'large.jpg'), cv2.resize(read_image(images[0]), (300, 200)))
    options = ('--tile', 128, '--out-dir', tmp_path / 'b')
    assert workspace.tool('infer', config, detector, tmp_path / 'large.jpg', *options) is None
    assert read_image(tmp_path / 'b' / 'vis' / 'large.jpg').shape == (200, 300, 3)
