"""Each kind of bad input ends a tool with one message that names it."""

import json
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from workspaces import DETECTION, INSTANCE, SEMANTIC, short

from icconv_mm.checkpoints import read

pytestmark = pytest.mark.slow


@pytest.fixture
def train(workspace):
    """Start to train with changed options; returns the error."""

    def run(config=DETECTION, *args, **options):
        options = {key.replace('__', '.'): value for key, value in options.items()}
        return workspace.tool('train', workspace.config(config), '--work-dir', 'runs/bad', *args, *short(1, **options))

    return run


def test_truncated_image_is_named_or_skipped(workspace):
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
    loaded, before = read(root / 'runs/bad/iter_1.pth')['state_dict'], read(detector)['state_dict']
    assert set(before) < set(loaded)
    distance = (loaded['backbone.conv1.weight'] - before['backbone.conv1.weight']).abs().max()
    assert distance < 1e-3  # one step with a learning rate of 1e-4


def test_as_a_process(workspace):
    """Exit status and streams, once: a message on stderr, no traceback unless asked for."""
    tool = (sys.executable, workspace.repo / 'tools/train.py')
    run = workspace.run(*tool, 'gone.py', check=False)
    assert (run.returncode, run.stderr.splitlines()[-1]) == (
        1,
        f'error: config: no such file: gone.py (in {workspace.root})',
    )
    assert 'Traceback' not in run.stderr
    run = workspace.run(*tool, 'gone.py', '--debug', check=False)
    assert run.returncode == 1 and 'Traceback' in run.stderr


def test_images_that_fail_among_others(workspace, detector):
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


def test_a_folder_whose_name_is_not_ascii(workspace, detector):
    folder = workspace.root / 'größe/圖'
    folder.mkdir(parents=True)
    image = folder / '猫.jpg'
    shutil.copy(workspace.root / 'data/miniature/val/000001.jpg', image)
    command = (sys.executable, workspace.repo / 'tools/infer.py', workspace.config(DETECTION), detector, image)
    run = workspace.run('env', 'LC_ALL=C', *command, '--out-dir', folder / 'out', check=False)
    assert run.returncode == 0, run.stderr
    assert (folder / 'out/vis/猫.jpg').is_file()
    train = (sys.executable, workspace.repo / 'tools/train.py', workspace.config(DETECTION))
    run = workspace.run('env', 'LC_ALL=C', *train, '--work-dir', folder / 'run', *short(1), check=False)
    assert run.returncode == 0, run.stderr
