"""The CUDA sources compile, where there is nvcc; that they are right is tested on a GPU."""

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / 'csrc').rglob('*.cu'))


def name_of(source: Path) -> str:
    return str(source.relative_to(ROOT / 'csrc/cuda'))


def nvcc() -> str:
    home = Path(os.environ.get('CUDA_HOME', '/usr/local/cuda'), 'bin/nvcc')
    compiler = str(home) if home.exists() else shutil.which('nvcc')
    if compiler is None:
        pytest.skip('there is no nvcc')
    release = re.search(
        r'release (\d+)\.', subprocess.run([compiler, '--version'], capture_output=True, text=True).stdout
    )
    if torch.version.cuda is None or release is None or release[1] != torch.version.cuda.split('.')[0]:
        pytest.skip(f'nvcc is not of the CUDA version of torch, {torch.version.cuda}')
    return compiler


@pytest.mark.slow
@pytest.mark.parametrize('source', SOURCES, ids=name_of)
def test_compiles(source, tmp_path):
    include = Path(torch.__file__).parent / 'include'
    command = [nvcc(), '-O3', '-std=c++17', '-w', '-c', '-arch=sm_80', '-DTORCH_EXTENSION_NAME=_C']
    command += cpp_extension.COMMON_NVCC_FLAGS
    command += [f'-I{include}', f'-I{include / "torch/csrc/api/include"}', f'-I{sysconfig.get_path("include")}']
    run = subprocess.run([*command, str(source), '-o', tmp_path / 'source.o'], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
