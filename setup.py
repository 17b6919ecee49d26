"""Build of icconv_mm: the optional compiled operators, and the ``.mim`` folder in which mim finds configs and tools.

Environment variables:
    ICCONV_MM_EXT: ``auto`` (default) compiles the operators where torch and a C++ compiler are at hand, with CUDA where
        torch sees a GPU and nvcc matches torch's CUDA; ``off`` never; ``cpu`` without CUDA; ``require`` makes a failed
        build an error; ``cuda`` makes a build without CUDA an error, too; ``wheel`` is ``cpu`` with a failed build an
        error and the torch version in the package's version (``make wheel``).
    TORCH_CUDA_ARCH_LIST: the GPUs to compile for, also where torch sees none.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel as _bdist_wheel
from setuptools.command.editable_wheel import editable_wheel as _editable_wheel

ROOT = Path(__file__).resolve().parent
EXT_MODE = os.environ.get('ICCONV_MM_EXT', 'auto')
MODES = ('auto', 'off', 'cpu', 'require', 'cuda', 'wheel')
if EXT_MODE not in MODES:
    raise SystemExit(f'ICCONV_MM_EXT={EXT_MODE!r} is none of {MODES}')


def notice(text: str) -> None:
    print(f'icconv_mm: {text}', flush=True)


def no_extension(reason: str) -> None:
    if EXT_MODE in ('require', 'cuda', 'wheel'):
        raise SystemExit(f'icconv_mm: the compiled operators were required, but {reason}')
    notice(f'without compiled operators ({reason}); the reference operators serve every call')


def no_cuda(reason: str) -> None:
    if EXT_MODE == 'cuda':
        raise SystemExit(f'icconv_mm: the CUDA operators were required, but {reason}')
    notice(f'without CUDA operators ({reason})')


def nvcc_major(cuda_home: str) -> str:
    text = subprocess.run([f'{cuda_home}/bin/nvcc', '--version'], capture_output=True, text=True).stdout
    match = re.search(r'release (\d+)\.', text)
    return match.group(1) if match else 'unknown'


def cuda_at_hand() -> bool:
    """Whether a GPU is here, and nvcc of the major version that torch was built with; says why not."""
    standard = '/usr/local/cuda'
    if Path(standard, 'bin/nvcc').exists():  # else torch takes the folder above whatever nvcc is first on PATH
        os.environ.setdefault('CUDA_HOME', standard)
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if EXT_MODE in ('cpu', 'wheel'):
        return False
    if torch.version.cuda is None or not CUDA_HOME or not Path(CUDA_HOME, 'bin/nvcc').exists():
        no_cuda('torch is built without CUDA' if torch.version.cuda is None else 'there is no CUDA toolkit with nvcc')
        return False
    version, wanted = nvcc_major(CUDA_HOME), torch.version.cuda.split('.')[0]
    if version != wanted:
        no_cuda(f'nvcc is of CUDA {version}, torch of CUDA {wanted}')
        return False
    if EXT_MODE != 'cuda' and not torch.cuda.is_available() and not os.environ.get('TORCH_CUDA_ARCH_LIST'):
        no_cuda('torch sees no GPU; ICCONV_MM_EXT=cuda compiles them all the same, which takes minutes')
        return False
    return True


def make_extension(cuda: bool):
    import torch
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    # compiled against this torch and no other: the name keeps the builds of several environments apart
    name = 'icconv_mm._C_torch' + '_'.join(torch.__version__.split('.')[:2])
    sources = sources_of('*.cpp')
    # without it at::parallel_for is a loop on one thread
    compile_args, link_args = ['-O3', '-fopenmp'], openmp_library(Path(torch.__file__).parent / 'lib')
    if '-g' not in os.environ.get('CFLAGS', ''):
        compile_args.append('-g0')  # else Python's own flags ask for debug information: a third of the compiler's time
    if not cuda:
        return CppExtension(name, sources, extra_compile_args=compile_args, extra_link_args=link_args)
    if not torch.cuda.is_available():
        # No GPU to ask, and torch's own list would name architectures that an older nvcc does not know. Newer GPUs
        # compile the PTX at first use.
        os.environ.setdefault('TORCH_CUDA_ARCH_LIST', '8.0+PTX')
    sources += sources_of('*.cu')
    arguments = {'cxx': compile_args, 'nvcc': ['-O3']}
    return CUDAExtension(name, sources, extra_compile_args=arguments, extra_link_args=link_args)


def sources_of(pattern: str) -> list[str]:
    return [str(path) for path in sorted(Path('csrc').rglob(pattern))]


def takes_long(source: str) -> bool:
    """Whether a source must not be the last that ninja starts, when the other processors have nothing left to do."""
    return not {'cuda', 'python', 'simd'}.isdisjoint(Path(source).parts)


def openmp_library(torch_lib: Path) -> list[str]:
    """Links torch's own OpenMP runtime where its wheel brings one: a second would have threads of its own."""
    libraries = sorted(torch_lib.glob('libgomp*.so*'))
    return [str(libraries[0])] if libraries else ['-fopenmp']


def extension_modules() -> list:
    if EXT_MODE == 'off':
        return []
    try:
        return [make_extension(cuda_at_hand())]
    except ImportError:
        no_extension('torch is not installed in the build environment; use pip install --no-build-isolation')
        return []


def extension_command() -> dict:
    if EXT_MODE == 'off':
        return {}
    try:
        from torch.utils.cpp_extension import BuildExtension
    except ImportError:
        return {}

    class BuildOptional(BuildExtension):
        """Builds the operators; falls back to the CPU ones without CUDA, and to none without a working compiler."""

        def build_extension(self, extension):
            compile_all = self.compiler.compile  # of torch, which gives ninja the sources as setuptools has sorted them
            self.compiler.compile = lambda sources, *rest, **options: compile_all(
                sorted(sources, key=takes_long, reverse=True), *rest, **options
            )
            super().build_extension(extension)

        def run(self):
            with_cuda = any(source.endswith('.cu') for e in self.extensions for source in e.sources)
            if self.editable_mode:  # in pip's own folder, which is temporary, all would be compiled at each set-up
                self.build_temp = str(ROOT / 'build' / self.extensions[0].name)
            try:
                super().run()
            except (Exception, SystemExit) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                if with_cuda:
                    no_cuda(f'their build failed: {reason}')
                    self.extensions[:] = [make_extension(cuda=False)]
                    self.run()
                    return
                no_extension(f'the build failed: {reason}')
                for extension in self.extensions:
                    extension.optional = True  # setuptools then does not look for the missing file

    return {'build_ext': BuildOptional}


def options() -> dict:
    """A wheel of compiled operators has the torch version in its own, as it serves no other: ``0.1.0+torch2.11``."""
    if EXT_MODE != 'wheel':
        return {}
    import torch

    return {'egg_info': {'tag_build': '+torch' + '.'.join(torch.__version__.split('.')[:2])}}


# What the two mims need of an installation. Both look for a folder F with F/.mim/tools or F/tools, and search all of F
# for the one config of a given name, through links. They find F in different ways:
#
#              | wheel                                           | editable install
#   openmim    | site-packages/icconv_mm                         | the first line of top_level.txt, in site-packages
#   onedl-mim  | the first folder in RECORD, which pip sorts:    | the checkout
#              | that of the metadata, as "-" is before "/"      |
#
# So a wheel has two copies. In a checkout, a link to its configs would be a second config of each name for onedl-mim:
# there openmim gets the folder of the configs itself, with links to the rest.
MIM_ITEMS = ('configs', 'tools', 'model-index.yml', 'constraints')  # the last for icconv_mm.install_openmmlab


def left_out(folder: str, names: list[str]) -> set[str]:
    """What a wheel does without: bytecode, links for openmim, and the workshop of the repository."""
    return {name for name in names if name in ('__pycache__', '.mim') or Path(folder, name) == ROOT / 'tools' / 'dev'}


class BdistWheel(_bdist_wheel):
    def write_wheelfile(self, wheelfile_base, **options):
        super().write_wheelfile(wheelfile_base, **options)
        metadata = Path(wheelfile_base)
        if not (metadata.parent / 'icconv_mm').is_dir():  # the wheel of an editable install
            return
        for target in (metadata.parent / 'icconv_mm/.mim', metadata / '.mim'):
            for name in MIM_ITEMS:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, target / name, ignore=left_out)
                else:
                    shutil.copy(ROOT / name, target / name)


class EditableWheel(_editable_wheel):
    def _ensure_dist_info(self):
        super()._ensure_dist_info()
        shutil.rmtree(ROOT / 'icconv_mm/.mim', ignore_errors=True)  # of earlier versions: a second config of each name
        target = ROOT / 'configs/.mim'
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        (target / 'tools').symlink_to('../../tools')
        index = (ROOT / 'model-index.yml').read_text()
        (target / 'model-index.yml').write_text(index.replace('- configs/', '- ../'))
        Path(self.dist_info_dir, 'top_level.txt').write_text(f'{ROOT / "configs"}\nicconv_mm\n')


setup(
    packages=find_packages(include=['icconv_mm', 'icconv_mm.*', 'icconv_mm_runtime', 'icconv_mm_runtime.*']),
    ext_modules=extension_modules(),
    options=options(),
    cmdclass={'bdist_wheel': BdistWheel, 'editable_wheel': EditableWheel, **extension_command()},
)
