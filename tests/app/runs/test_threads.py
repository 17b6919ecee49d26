"""A narrow network gets one thread, unless the user says how many."""

import argparse

import pytest
import torch
from mmengine.config import Config

from icconv_mm.app.commands.command_line import read_run
from icconv_mm.app.runs.threads import choose_threads, is_narrow


@pytest.fixture
def threads(monkeypatch):
    """The numbers that torch is given, where the environment gives none."""
    given = []
    monkeypatch.setattr(torch, 'set_num_threads', given.append)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    return given


@pytest.mark.parametrize(
    ('backbone', 'expected'),
    [
        (dict(type='icconv_mm.ICResNet', depth=18, base_channels=24), [1]),
        (dict(type='icconv_mm.ICResNet', depth=18, base_channels=64), []),
        (dict(type='mmdet.ResNet', depth=50), []),
        (None, []),
    ],
)
def test_a_second_thread_must_bring_something(threads, backbone, expected, monkeypatch):
    choose_threads(Config(dict(model=dict(backbone=backbone))))
    assert threads == expected == [1] * (backbone is not None and is_narrow(backbone))
    monkeypatch.setenv('OMP_NUM_THREADS', '2')
    choose_threads(Config(dict(model=dict(backbone=backbone))))
    assert threads == expected, 'the user has chosen'


def test_networks_without_a_backbone(threads):
    choose_threads(Config(dict(model=dict(type='Model'))))
    choose_threads(Config({}))
    assert threads == []


def test_commands_choose_before_they_compute(threads, tmp_path):
    """Those that train, test, predict and export all read their run by this function."""
    config = tmp_path / 'config.py'
    config.write_text("default_scope = 'mmdet'\nmodel = dict(type='A', backbone=dict(type='B', base_channels=24))\n")
    read_run(argparse.Namespace(config=str(config), cfg_options=None, work_dir=None, debug=False))
    assert threads == [1]
