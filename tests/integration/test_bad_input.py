"""Each kind of bad input ends a tool with one sentence that names it."""

import json
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from workspaces import DETECTION, INSTANCE, SEMANTIC, short

pytestmark = pytest.mark.slow


@pytest.fixture
def train(workspace):
    """Start to train with changed options; returns the error."""

    def run(config=DETECTION, *args, **options):
        options = {key.replace('__', '.'): value for key, value in options.items()}
        return workspace.tool('train', workspace.config(config), '--work-dir', 'runs/bad', *args, *short(1, **options))

    return run


def annotations(workspace, change) -> str:
    """A changed copy of the training annotations."""
    content = json.loads((workspace.root / 'data/miniature/annotations/instances_train.json').read_text())
    path = workspace.root / 'changed.json'
    path.write_text(json.dumps(change(content)))
    return str(path)


def test_missing_dataset(train, workspace):
    error = train(train_dataloader__dataset__data_root='data/coco/')
    assert error == f'error: train_dataloader.dataset.data_root: no such folder: data/coco/ (in {workspace.root})'
    error = train(val_evaluator__ann_file='gone.json')
    assert error == f'error: val_evaluator.ann_file: no such file: gone.json (in {workspace.root})'


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda c: {'images': c['images'], 'shapes': []}, "no list 'annotations'; found 'images', 'shapes'"),
        (lambda c: c['annotations'], 'the top level is a list'),
        (lambda c: {**c, 'images': [{'id': 1}]}, r"images\[0\]: no field 'file_name'"),
    ],
)
def test_annotations_that_are_not_coco(train, workspace, change, message):
    error = train(train_dataloader__dataset__ann_file=annotations(workspace, change))
    assert re.match(rf'error: train_dataloader\.dataset.*changed\.json.*{message}', error)
    assert '\n' not in error


def test_classes_of_another_dataset(train, workspace):
    def rename(content):
        return {**content, 'categories': [{**entry, 'name': f'x{entry["id"]}'} for entry in content['categories']]}

    error = train(train_dataloader__dataset__ann_file=annotations(workspace, rename))
    assert re.match(r"error: train_dataloader\.dataset: none of the classes \['person', .*has \['x1', ", error)


def test_text_instead_of_annotations(train, workspace):
    (workspace.root / 'changed.json').write_text('<xml>')
    error = train(train_dataloader__dataset__ann_file=workspace.root / 'changed.json')
    assert re.match(r'error: train_dataloader\.dataset\.ann_file: .*changed\.json: not a COCO .* not JSON', error)


def test_truncated_picture_is_named_or_skipped(workspace):
    """In a worker of the data loader, as in real runs."""
    source, copy = workspace.root / 'data/miniature', workspace.root / 'data/damaged'
    shutil.copytree(source, copy)
    bad = copy / 'train/000003.jpg'
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    worker = {'train_dataloader.num_workers': 1, 'train_dataloader.dataset.data_root': 'data/damaged/'}
    args = (workspace.config(SEMANTIC), '--work-dir', 'runs/damaged')
    error = workspace.tool('train', *args, *short(4, **worker))
    assert error.startswith('error: data/damaged/train/000003.jpg: truncated or corrupt (')
    assert '\n' not in error
    assert workspace.tool('train', *args, '--skip-bad-images', *short(4, **worker)) is None
    losses = workspace.losses('runs/damaged')
    assert len(losses) == 4 and all(np.isfinite(loss) for loss in losses.values())


def test_truncated_picture_of_the_validation_is_named(workspace):
    source, copy = workspace.root / 'data/miniature', workspace.root / 'data/damaged_val'
    shutil.copytree(source, copy)
    bad = copy / 'val/000001.jpg'
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    options = short(1, **{'val_dataloader.dataset.data_root': 'data/damaged_val/'})
    error = workspace.tool('train', workspace.config(SEMANTIC), '--work-dir', 'runs/damaged_val', *options)
    assert error.startswith('error: data/damaged_val/val/000001.jpg: truncated or corrupt (')


def test_pictures_to_predict_for(workspace, detector):
    infer = (workspace.config(DETECTION), detector)
    out = ('--out-dir', 'runs/bad_pictures')
    (workspace.root / 'note.txt').write_text('no image')
    bad = workspace.root / 'bad.jpg'
    bad.write_bytes((workspace.root / 'data/miniature/val/000001.jpg').read_bytes()[:500])
    assert workspace.tool('infer', *infer, bad, *out).startswith(f'error: {bad}: truncated or corrupt')
    assert workspace.tool('infer', *infer, workspace.root / 'note.txt', *out).startswith('error: ')
    assert 'error: no image (' in workspace.tool('infer', *infer, 'nothing/*.jpg', *out)


def test_checkpoint_of_another_architecture(workspace, detector, train):
    """Refused by every tool with the keys listed, and nothing of it ends up in the model."""
    instance, root = workspace.config(INSTANCE), workspace.root
    for error in (
        workspace.tool('test', instance, detector, *short(1)),
        workspace.tool('infer', instance, detector, 'data/miniature/val', '--out-dir', 'runs/x'),
        train(INSTANCE, load_from=detector),
    ):
        first, *lines = error.splitlines()
        assert first == f'error: {detector} does not fit MaskRCNN, nothing was loaded:'
        assert len(lines) == 1
        assert re.match(r'  missing in the checkpoint \(\d+\): roi_head\.mask_head \(\d+: ', lines[0])

    deeper = workspace.tool('test', workspace.config(DETECTION), detector, *short(1, **{'model.backbone.depth': 34}))
    assert 'missing in the checkpoint' in deeper
    assert 'backbone.layer3 (' in deeper

    # fine-tuning with another head is possible, when told
    error = train(INSTANCE, '--allow-mismatch', 'roi_head.mask_head', load_from=detector)
    assert error is None
    loaded, before = torch.load(root / 'runs/bad/iter_1.pth')['state_dict'], torch.load(detector)['state_dict']
    assert set(before) < set(loaded)
    distance = (loaded['backbone.conv1.weight'] - before['backbone.conv1.weight']).abs().max()
    assert distance < 1e-3  # one step with a learning rate of 1e-4


def test_misspelt_options(train):
    assert train(model__bakcbone__depth=50) == (
        "error: --cfg-options: model.bakcbone.depth: no such key 'bakcbone' in the config; did you mean 'backbone'?"
    )
    error = train(model__backbone__zero_init=True)
    assert re.match(r"error: .*faster-rcnn_ic-r18_fpn_miniature\.py: .*unexpected keyword argument 'zero_init'", error)
    error = train(model__backbone__type='icconv_mm.ICResNetX')
    assert re.match(r'error: .*miniature\.py: .*ICResNetX is not in the', error)
    error = train(model__backbone__pattern='detection/nothing')
    assert re.match(r'error: .*miniature\.py: .*detection/nothing', error)


def test_missing_checkpoints(train, workspace):
    gone = f'gone.pth (in {workspace.root})'
    assert train(DETECTION, '--resume', 'gone.pth') == f'error: --resume: no such file: {gone}'
    pretrained = {'model__backbone__init_cfg__type': 'Pretrained', 'model__backbone__init_cfg__checkpoint': 'gone.pth'}
    error = train(**pretrained)
    assert error == f'error: backbone.init_cfg.checkpoint: no such file: {gone}'
    assert train(load_from='gone.pth') == f'error: load_from: no such file: {gone}'
    error = workspace.tool('test', workspace.config(DETECTION), 'gone.pth')
    assert error == f'error: checkpoint: no such file: {gone}'


def test_truncated_checkpoint(train, workspace, detector):
    path = workspace.root / 'cut.pth'
    with open(detector, 'rb') as file:
        path.write_bytes(file.read(100_000))
    assert train(DETECTION, '--resume', path).startswith(f'error: {path}: truncated, or not a torch checkpoint')


def test_options_that_the_config_cannot_serve(train, workspace, detector):
    assert 'has no auto_scale_lr.base_batch_size' in train(DETECTION, '--auto-scale-lr')
    semantic = workspace.config(SEMANTIC)
    error = workspace.tool('test', semantic, detector, '--tta')
    assert error.startswith('error: --tta: ') and error.endswith(' does not define tta_pipeline')
    error = workspace.tool('test', workspace.config(DETECTION), detector, '--out', 'results.json')
    assert error == 'error: --out: expected a name that ends in .pkl, got results.json'


def test_as_a_process(workspace):
    """Exit status and streams, once: a sentence on stderr, no traceback unless asked for."""
    tool = (sys.executable, workspace.repo / 'tools/train.py')
    run = workspace.run(*tool, 'gone.py', check=False)
    assert (run.returncode, run.stderr.splitlines()[-1]) == (
        1,
        f'error: config: no such file: gone.py (in {workspace.root})',
    )
    assert 'Traceback' not in run.stderr
    run = workspace.run(*tool, 'gone.py', '--debug', check=False)
    assert run.returncode == 1 and 'Traceback' in run.stderr


def test_pictures_that_fail_among_others(workspace, detector):
    """The others are predicted for; those that fail are listed at the end."""
    folder, out = workspace.root / 'mixed', workspace.root / 'runs/mixed'
    shutil.copytree(workspace.root / 'data/miniature/val', folder)
    good = sorted(path.name for path in folder.iterdir())
    (folder / 'a_truncated.jpg').write_bytes((folder / good[0]).read_bytes()[:500])
    for name, size in (('b_tall.png', (20000, 10)), ('c_wide.png', (10, 20000)), ('d_line.png', (1, 3000))):
        cv2.imwrite(str(folder / name), np.zeros((*size, 3), np.uint8))
    error = workspace.tool('infer', workspace.config(DETECTION), detector, folder, '--out-dir', out, '--batch-size', 3)
    first, *lines = error.splitlines()
    failed = [Path(line.split(': ')[0].strip()).name for line in lines]
    assert first == f'error: {len(failed)} of {len(good) + 4} images failed; the results of the others are in {out}:'
    assert 'a_truncated.jpg' in failed and not set(failed) & set(good)
    images = json.loads((out / 'images.json').read_text())['images']
    assert {image['file_name'] for image in images} == {path.name for path in folder.iterdir()} - set(failed)
    assert {path.name for path in (out / 'vis').iterdir()} == {image['file_name'] for image in images}


def test_outputs_that_cannot_be_written(workspace, detector):
    """A file in the place of a folder, or a folder in the place of a file."""
    taken = workspace.root / 'taken'
    taken.write_text('')
    infer = (workspace.config(DETECTION), detector, 'data/miniature/val', '--out-dir')
    assert workspace.tool('infer', *infer, taken) == f'error: {taken}: File exists'
    assert workspace.tool('infer', *infer, taken / 'below') == f'error: {taken / "below"}: Not a directory'
    assert workspace.tool('train', workspace.config(DETECTION), '--work-dir', taken, *short(1)).startswith('error: ')


def test_a_full_disk_while_training(workspace):
    """No file may grow beyond a limit, which is how a process can be given a full disk."""
    limited = 'import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)); '
    code = limited + "sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    train = (sys.executable, '-c', code, workspace.repo / 'tools/train.py', workspace.config(DETECTION))
    run = workspace.run(*train, '--work-dir', 'runs/full', *short(1), check=False)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith('error: ') and 'iter_1.pth: ' in run.stderr.splitlines()[-1]
    assert 'File too large' in run.stderr.splitlines()[-1] and 'Traceback' not in run.stderr
    assert not list((workspace.root / 'runs/full').glob('*.pth'))


def test_a_folder_whose_name_is_not_ascii(workspace, detector):
    folder = workspace.root / 'größe/圖'
    folder.mkdir(parents=True)
    picture = folder / '猫.jpg'
    shutil.copy(workspace.root / 'data/miniature/val/000001.jpg', picture)
    infer = (sys.executable, workspace.repo / 'tools/infer.py', workspace.config(DETECTION), detector, picture)
    run = workspace.run('env', 'LC_ALL=C', *infer, '--out-dir', folder / 'out', check=False)
    assert run.returncode == 0, run.stderr
    assert (folder / 'out/vis/猫.jpg').is_file()
    train = (sys.executable, workspace.repo / 'tools/train.py', workspace.config(DETECTION))
    run = workspace.run('env', 'LC_ALL=C', *train, '--work-dir', folder / 'run', *short(1), check=False)
    assert run.returncode == 0, run.stderr


def test_checkpoints_that_a_run_cannot_continue_from(workspace, detector):
    content = torch.load(detector)
    path = workspace.root / 'changed.pth'
    for change, message in (
        ({'meta': {**content['meta'], 'iter': 10**12}}, r'meta\.iter is 1000000000000, expected a number from 0 to 5'),
        ({'meta': {**content['meta'], 'seed': 'x'}}, r"meta\.seed is 'x'"),
        ({'meta': [1]}, 'meta is a list, expected a dict'),
        ({'optimizer': {}}, r'optimizer\.param_groups: found'),
        ({'param_schedulers': {'x': 1}}, r'param_schedulers is a dict, expected a list'),
        ({'message_hub': 5}, 'message_hub is a int, expected a dict'),
    ):
        torch.save({**content, **change}, path)
        args = ('--work-dir', 'runs/changed', '--resume', path, *short(5))
        error = workspace.tool('train', workspace.config(DETECTION), *args)
        assert re.match(rf'error: {path}: {message}', error), error
