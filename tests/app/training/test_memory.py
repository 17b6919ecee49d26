"""Memory of a training: its estimate, and batches that fit it."""

import itertools
import subprocess
import sys

import labelled
import pytest
import torch

from icconv_mm.app.training import memory
from icconv_mm.app.training.own_backbone import backbone_of
from icconv_mm.app.training.own_data import config_for, fitting_batch
from icconv_mm.registry import MODELS

GB = 1e9


@pytest.mark.parametrize('name', ['small', 'small_s8', 'ic_resnet50', 'pyconv_hgresnet50'])
def test_maps_are_those_of_larger_images(name):
    """What a third image adds, of which weights are no part."""
    held = []
    network = MODELS.build(backbone_of(name)).train()
    for count in (2, 3):
        tensors = []
        with torch.autograd.graph.saved_tensors_hooks(tensors.append, id):
            network(torch.zeros(count, 3, 128, 192))
        storages = [tensor.untyped_storage() for tensor in tensors]
        held.append(sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()))
    process, image = memory.training_memory(backbone_of(name), (192, 128))
    assert image == pytest.approx(2.5 * (held[1] - held[0]), rel=0.02)
    assert process == 1.5 * GB + 16 * sum(parameter.numel() for parameter in network.parameters())


def test_time_grows_with_the_images_and_the_network(monkeypatch):
    """Of a clock that counts, for which each step takes a second; a GPU is not timed on the CPU."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(memory, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(memory.time, 'perf_counter', itertools.count().__next__)
    small, large = memory.training_times(backbone_of('small'), (192, 192), (384, 192))
    second = (192 / 128) ** 2 / 2  # of the backbone for an image of 192 x 192 pixels; it takes one for two of 128 x 128
    assert (small, large) == pytest.approx(((2.3 + 2.1) * second, (2 * 2.3 + 2.1) * second))
    assert torch.get_num_threads() == threads
    monkeypatch.setattr(memory, 'get_device', lambda: 'cuda')
    assert memory.training_times(backbone_of('small'), (128, 128)) is None


def test_free_memory_is_what_linux_says(tmp_path, monkeypatch):
    file = tmp_path / 'meminfo'
    file.write_text('MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n')
    monkeypatch.setattr(memory, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(memory, '_MEMORY', file)
    assert memory.free_memory() == 8000000 * 1024
    file.write_text('MemTotal:       24000000 kB\n')
    assert memory.free_memory() is None
    monkeypatch.setattr(memory, '_MEMORY', tmp_path / 'none')  # Windows and macOS
    assert memory.free_memory() is None


@pytest.mark.parametrize(
    ('free', 'expected', 'is_reported'), [(64, 8, False), (20, 4, False), (3, 2, True), (None, 8, False)]
)
def test_a_batch_fits(monkeypatch, free, expected, is_reported):
    lines = []
    monkeypatch.setattr(memory, 'free_memory', lambda: free and free * GB)
    assert fitting_batch(backbone_of('ic_resnet50'), (1024, 1024), 8, lines.append) == expected
    assert [line.partition(' may take')[0] for line in lines] == [
        'memory: 2 images of 1024 x 1024 pixels'
    ] * is_reported


def test_a_config_for_little_memory(tmp_path, monkeypatch):
    """It has a smaller batch, the learning rate of that batch, and says why."""
    data, lines, cfgs = labelled.folders(tmp_path / 'data'), [], []
    options = dict(backbone='ic_resnet50', pretrained='none', size=640, epochs=3000, say=lines.append)
    for free in (64, 5):
        monkeypatch.setattr(memory, 'free_memory', lambda free=free: free * GB)
        cfgs.append(config_for(data, 'classification', work_dir=tmp_path / f'{free}', **options))
        assert ('batches of 2 instead of 3, which would not fit the memory;' in lines[-1]) == (free == 5)
    assert [cfg.train_dataloader.batch_size for cfg in cfgs] == [3, 2]
    assert [cfg.optim_wrapper.optimizer.lr for cfg in cfgs] == [0.00015, 0.00013]
    resumed = config_for(data, 'classification', work_dir=tmp_path / '64', resume=True, **options)
    assert resumed.train_dataloader.batch_size == 3  # little is free, but the schedule counts such steps
    assert resumed.optim_wrapper.optimizer.lr == 0.00015


# A process counts the memory of the one that it was split from, so a small one stands between.
WATCHED = 'import os, sys; _, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0); '
WATCHED += 'print(usage.ru_maxrss * 1024); sys.exit(status != 0)'


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='other systems count the memory of a process in other units')
def test_a_training_takes_what_is_estimated(tmp_path):
    pytest.importorskip('mmdet')
    pytest.importorskip('pycocotools')
    data = labelled.coco(tmp_path / 'data')
    command = [sys.executable, '-m', 'icconv_mm', 'train', str(data), '--task', 'instance', '--backbone', 'ic_resnet18']
    command += ['--size', '1024', '--epochs', '1', '--pretrained', 'none', '--no-validate', '--work-dir', 'run']
    watched = [sys.executable, '-c', WATCHED, *command]
    run = subprocess.run(watched, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    network, image = memory.training_memory(backbone_of('ic_resnet18'), (1024, 768))
    estimated = network + 2 * image
    assert 0.6 * estimated < int(run.stdout.split()[-1]) < 1.1 * estimated
