"""What can be seen of the CUDA kernels with nvcc alone, without a GPU: that they compile for every architecture, keep
their sums in registers, and multiply on tensor cores. Nothing here says that they are right or fast."""

import os
import re
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / 'csrc').rglob('*.cu'))
ARCHITECTURES = ('sm_80', 'sm_90a', 'sm_120')
# kernels whose work is products on tensor cores, by source: a part of their names
PRODUCTS = {
    'inception_conv/tiled_forward.cu': 'forward_kernel',
    'inception_conv/tiled_grad_input.cu': 'grad_input_kernel',
    'inception_conv/tiled_grad_weight.cu': 'grad_weight_kernel',
    'inception_conv/fused.cu': 'fused_kernel',
    'pyconv/tiled.cu': 'pyconv_kernel',
    'pyconv/tiled_grad_weight.cu': 'pyconv_weight_kernel',
}
# those whose products are of warpgroups, which sm_90a alone has
WARPGROUPS = {'inception_conv/fused_wgmma.cu': 'fused_wgmma_kernel'}
# Kernels whose products are of transposed matrices of 32-bit elements, which ldmatrix cannot transpose: read by word.
BY_WORD = re.compile(r'grad_weight_kernel.*(Float32|Tf32)')
# Bytes that kernels of these may spill, written and read, by source and a part of their names: the most that ptxas of
# CUDA 13.0 reports for an architecture. All of them ran on a GPU as they are, with two blocks on a processor, of which
# the registers are the price; Float32 is fp32 as three products. Nothing else may spill.
SPILLS = {
    'inception_conv/tiled_forward.cu': {'Float32': 1616, 'Tf32': 64, 'Float16': 116, 'BFloat16': 116},
    'inception_conv/tiled_grad_input.cu': {'Float32': 208},
    'inception_conv/tiled_grad_weight.cu': {'Float32': 28},  # on sm_120 alone
}


def allowance(source: Path, kernel: str) -> int:
    return max((size for part, size in SPILLS.get(name_of(source), {}).items() if part in kernel), default=0)


def name_of(source: Path) -> str:
    return str(source.relative_to(ROOT / 'csrc/cuda'))


def nvcc() -> str:
    home = Path(os.environ.get('CUDA_HOME', '/usr/local/cuda'), 'bin/nvcc')
    found = str(home) if home.exists() else shutil.which('nvcc')
    if found is None:
        pytest.skip('there is no nvcc')
    release = re.search(r'release (\d+)\.', subprocess.run([found, '--version'], capture_output=True, text=True).stdout)
    if torch.version.cuda is None or release is None or release[1] != torch.version.cuda.split('.')[0]:
        pytest.skip(f'nvcc is not of the CUDA version of torch, {torch.version.cuda}')
    return found


def cuobjdump() -> str:
    found = shutil.which('cuobjdump')
    if found is None:
        triton = pytest.importorskip('triton')  # which brings one
        found = str(Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump')
    if not Path(found).exists():
        pytest.skip('there is no cuobjdump')
    return found


@cache
def architectures() -> tuple[str, ...]:
    known = subprocess.run([nvcc(), '--list-gpu-code'], capture_output=True, text=True, check=True).stdout.split()
    return tuple(each for each in (*ARCHITECTURES, 'sm_90') if each in known or each.rstrip('a') in known)


def compile_source(source: Path, target: Path, *options: str) -> str:
    """What the compilers say of a source that must compile."""
    include = Path(torch.__file__).parent / 'include'
    command = [nvcc(), '-O3', '-std=c++17', '-w', *options, *cpp_extension.COMMON_NVCC_FLAGS]
    command += [f'-I{include}', f'-I{include / "torch/csrc/api/include"}', f'-I{sysconfig.get_path("include")}']
    run = subprocess.run([*command, str(source), '-o', str(target)], capture_output=True, text=True)
    assert run.returncode == 0, f'{name_of(source)}, {" ".join(options)}:\n{run.stderr[-4000:]}'
    return run.stderr


@pytest.fixture(scope='module')
def compiled(tmp_path_factory):
    """A function from a source and an architecture to the cubin and what the assembler said of it."""
    folder = tmp_path_factory.mktemp('cubins')

    @cache
    def compile_one(source: Path, architecture: str) -> tuple[Path, str]:
        target = folder / f'{source.parent.name}_{source.stem}_{architecture}.cubin'
        return target, compile_source(source, target, '-cubin', f'-arch={architecture}', '-Xptxas=-v')

    return compile_one


def spills(report: str) -> dict[str, int]:
    """Bytes that each kernel spills, out of the assembler's report."""
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads", report, re.DOTALL
    )
    return {kernel: int(stores) + int(loads) for kernel, stores, loads in found}


def machine_code(cubin: Path) -> dict[str, str]:
    """The instructions of each kernel."""
    listing = subprocess.run([cuobjdump(), '-sass', str(cubin)], capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r'Function : (\w+)\n(.*?)(?=Function : |\Z)', listing, re.DOTALL))


@pytest.mark.slow
@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize('source', SOURCES, ids=name_of)
def test_compiles_without_spills(compiled, source, architecture):
    if architecture not in architectures():
        pytest.skip(f'nvcc does not know {architecture}')
    report = spills(compiled(source, architecture)[1])
    assert {kernel: size for kernel, size in report.items() if size > allowance(source, kernel)} == {}
    if '__global__' in source.read_text():
        assert report


@pytest.mark.slow
@pytest.mark.parametrize('source', SOURCES, ids=name_of)
def test_host_side_compiles(source, tmp_path):
    """What surrounds the kernels, which a cubin leaves out, as the build compiles it."""
    compile_source(source, tmp_path / 'source.o', '-c', '-arch=sm_80', '-DTORCH_EXTENSION_NAME=_C')


@pytest.mark.slow
@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize('name', PRODUCTS)
def test_multiplies_on_tensor_cores(compiled, name, architecture):
    if architecture not in architectures():
        pytest.skip(f'nvcc does not know {architecture}')
    cubin = compiled(ROOT / 'csrc/cuda' / name, architecture)[0]
    kernels = {kernel: body for kernel, body in machine_code(cubin).items() if PRODUCTS[name] in kernel}
    assert kernels
    for kernel, body in kernels.items():
        assert 'HMMA.16816.F32' in body or 'HMMA.1688.F32.TF32' in body, kernel
        assert ('LDSM.16.M' in body) == (BY_WORD.search(kernel) is None), kernel  # fragments come by matrices


@pytest.mark.slow
@pytest.mark.parametrize('architecture', [*ARCHITECTURES, 'sm_90'])
@pytest.mark.parametrize('name', WARPGROUPS)
def test_warpgroups_are_of_sm_90a_alone(compiled, name, architecture):
    """Elsewhere the kernel is empty, and has fewer registers than the sums need, by which the host tells it."""
    if architecture not in architectures():
        pytest.skip(f'nvcc does not know {architecture}')
    cubin, report = compiled(ROOT / 'csrc/cuda' / name, architecture)
    kernels = {kernel: body for kernel, body in machine_code(cubin).items() if WARPGROUPS[name] in kernel}
    used = dict(re.findall(r"entry function '(\w+)'(?:(?!entry function).)*?Used (\d+) reg", report, re.DOTALL))
    assert kernels and 'serialize' not in report  # products wait for nothing but what they need
    for kernel, body in kernels.items():
        real = architecture == 'sm_90a'
        expected = {'64x24x16', '64x48x16', '64x64x16'} if real else set()
        assert set(re.findall(r'HGMMA\.(\w+)\.F32', body)) == expected, kernel
        assert ('LDSM.16.M' in body) == real == (int(used[kernel]) >= 64), kernel


def test_every_source_with_products_is_looked_at():
    for source in SOURCES:
        code = source.read_text()
        assert ('Math::multiply' in code) == (name_of(source) in PRODUCTS), source
        assert ('wgmma.mma_async' in code) == (name_of(source) in WARPGROUPS), source
