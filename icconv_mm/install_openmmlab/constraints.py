"""Which distributions, in which versions: the constraints of the repository, read for one environment."""

import re
import sys
from pathlib import Path

from .processes import SetupError

PACKAGE = Path(__file__).resolve().parents[1]
BUILD_TOOLS = ['pip', 'setuptools', 'wheel', 'ninja', 'cython', 'numpy']
TORCH = ['torch', 'torchvision']
LIBRARIES = [
    'mmengine', 'mmdet', 'mmsegmentation', 'ftfy', 'regex', 'opencv-python', 'pycocotools', 'scipy', 'matplotlib',
    'rich', 'tqdm', 'tensorboard',
    # what mmpose, mmpretrain and openmim ask for, without the packages that do not install beside the rest
    'json-tricks', 'munkres', 'einops', 'mat4py', 'modelindex', 'importlib-metadata',
    'click', 'colorama', 'requests', 'tabulate', 'pandas', 'model-index',
]  # fmt: skip
SOURCE_ONLY = ['chumpy', 'xtcocotools']  # their builds import numpy and pip: no build isolation
WITHOUT_DEPENDENCIES = ['mmpose', 'mmpretrain', 'openmim']  # openmim's own would downgrade setuptools
ALL = (*BUILD_TOOLS, *TORCH, 'mmcv', *LIBRARIES, *SOURCE_ONLY, *WITHOUT_DEPENDENCIES)
# Other distributions of the same imports: pip would install the one over the other. Where constraints have the fork, it
# is what is installed.
LITE = ('mmcv-lite', 'mmengine-lite')
FORKS = {
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmsegmentation': 'onedl-mmsegmentation',
    'mmpretrain': 'onedl-mmpretrain',
}
DEFAULT_TORCH = '2.11'


def constraints_folder() -> Path:
    """Beside the package in a checkout, else where the build has put it."""
    for folder in (PACKAGE.parent / 'constraints', PACKAGE / '.mim' / 'constraints'):
        if (folder / 'common.txt').is_file():
            return folder
    raise SetupError(f'{PACKAGE} has no constraints: install icconv_mm by pip, from a release or a checkout')


def known_torch() -> list[str]:
    """The versions of torch that there are constraints for."""
    names = (path.stem.removeprefix('torch-') for path in constraints_folder().glob('torch-*.txt'))
    return sorted(names, key=lambda name: [int(part) for part in name.split('.')])


def canonical(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def read_pins(text: str) -> dict[str, str]:
    """Name -> version, of the lines that hold for this Python."""
    pins = {}
    for name, version, sign, minor in re.findall(
        r'^([\w.-]+)==([\w.+-]+)(?:; python_version (<|>=) "3\.(\d+)")?', text, re.M
    ):
        if not sign or (sys.version_info.minor < int(minor)) == (sign == '<'):
            pins[canonical(name)] = version
    return pins


class Target:
    """An environment, and the versions that belong there.

    Args:
        python: Interpreter of the environment, of the version that runs this.
        torch: Version that names the constraints: ``constraints/torch-VERSION.txt``.
        device: 'cpu' or 'cuda': for which mmcv is compiled.
        site: Folder of the environment's packages.
    """

    def __init__(self, python: Path, torch: str, device: str, site: Path):
        self.python, self.torch, self.device, self.site = python, torch, device, site
        self.constraints = constraints_folder() / f'torch-{torch}.txt'
        if not self.constraints.is_file():
            raise SetupError(f'TORCH={torch}: there are constraints for {", ".join(known_torch())} only')
        self.pin_text = self.constraints.read_text()
        if '-c common.txt' in self.pin_text:
            self.pin_text = self.constraints.with_name('common.txt').read_text() + self.pin_text
        self.pins = read_pins(self.pin_text)
        self.mmcv = self.distribution('mmcv')

    def distribution(self, name: str) -> str:
        """What provides a library here: itself or its fork."""
        fork = FORKS.get(name)
        return fork if fork in self.pins else name

    def those(self, names: list[str]) -> list[str]:
        """The distributions among ``names``, or their forks, that have a pinned version."""
        return [name for name in map(self.distribution, names) if canonical(name) in self.pins]
