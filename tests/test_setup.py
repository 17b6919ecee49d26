"""What setup.py compiles, by torch, nvcc and GPUs as they are pretended to be; nothing is compiled."""

import importlib.util

import pytest
import setuptools
import torch
from torch.utils import cpp_extension


@pytest.fixture
def configured(repo, tmp_path, monkeypatch):
    """Runs setup.py beside a torch with CUDA and its nvcc; returns what setuptools gets."""
    nvcc = tmp_path / 'bin/nvcc'
    nvcc.parent.mkdir()
    nvcc.write_text('#!/bin/sh\necho release 13.0, V13.0.1\n')
    nvcc.chmod(0o755)
    monkeypatch.chdir(repo)
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(cpp_extension, 'CUDA_HOME', str(tmp_path))
    for name in ('CUDA_HOME', 'TORCH_CUDA_ARCH_LIST'):  # which setup.py sets: undone after the test
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)

    def configure(mode, *, gpu=False, **variables):
        got = {}
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
        monkeypatch.setattr(setuptools, 'setup', lambda **arguments: got.update(arguments))
        for name, value in {'ICCONV_MM_EXT': mode, **variables}.items():
            monkeypatch.setenv(name, value)
        spec = importlib.util.spec_from_file_location('setup_of_icconv_mm', repo / 'setup.py')
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        return got

    return configure


def compiles_cuda(got):
    (extension,) = got['ext_modules']
    assert any(source.endswith('.cpp') for source in extension.sources)
    return any(source.endswith('.cu') for source in extension.sources)


@pytest.mark.parametrize('mode', ['auto', 'require'])
def test_without_a_gpu_cpu_operators_alone(configured, capsys, mode):
    assert not compiles_cuda(configured(mode))
    (notice,) = capsys.readouterr().out.splitlines()
    assert notice.startswith('icconv_mm: without CUDA operators (torch sees no GPU; ICCONV_MM_EXT=cuda ')


@pytest.mark.parametrize(
    'asked',
    [
        {'mode': 'auto', 'gpu': True},
        {'mode': 'cuda'},
        {'mode': 'auto', 'TORCH_CUDA_ARCH_LIST': '9.0'},
    ],
)
def test_cuda_operators_for_a_gpu_or_when_asked(configured, capsys, asked):
    assert compiles_cuda(configured(**asked))
    assert not capsys.readouterr().out


def test_a_wheel_has_the_torch_version_and_no_cuda(configured):
    got = configured('wheel', gpu=True)
    assert not compiles_cuda(got)
    major, minor = torch.__version__.split('.')[:2]
    assert got['options']['egg_info']['tag_build'] == f'+torch{major}.{minor}'
    assert not configured('auto')['options']
