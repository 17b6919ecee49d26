"""Every command of the table in docs/install.md, in clean environments with links to the installed libraries.

The column is that of the mim and the libraries that are installed: openmim and OpenMMLab's by default, onedl-mim and
the forks with ``make test TORCH=2.15``.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import labelled
import pytest
from mim_routes import CLONE, EDITABLE, OWN, ROUTES, STACKS, TOOL, WHEEL, YES
from trees import copy_tracked
from workspaces import DETECTION, SEMANTIC, short

from icconv_mm import versions
from icconv_mm.apis import config_for
from icconv_mm.app.install_openmmlab import installed_here

pytestmark = pytest.mark.slow

CONFIGS = {'mmdet': DETECTION, 'mmseg': SEMANTIC, 'mmpose': 'pose/ae_ic-r18_miniature.py'}


@pytest.fixture(scope='module')
def column() -> int:
    """The column of the table that the installed distributions are."""
    installed = installed_here()
    columns = [number for number, names in enumerate(STACKS.values()) if set(names) <= installed.keys()]
    if not columns:
        pytest.skip('mim (openmim) is not installed')
    return columns[0]


class Site:
    """A virtual environment that sees what this one has, but for icconv_mm."""

    def __init__(self, root: Path, workspace) -> None:
        self.root, self.workspace, self.path = root, workspace, ''
        venv.create(root, symlinks=True)
        source, site = (Path(sysconfig.get_path('purelib', vars=where)) for where in ({}, {'base': str(root)}))
        for part in source.iterdir():
            if 'icconv_mm' not in part.name and part.name != '__pycache__':
                (site / part.name).symlink_to(part)
        script = f'#!{root}/bin/python\nfrom mim.cli import cli\ncli()\n'
        (root / 'bin/mim').write_text(script)
        (root / 'bin/mim').chmod(0o755)

    def install(self, *arguments: str | Path) -> None:
        """Calls pip, which fetches nothing."""
        command = [sys.executable, '-m', 'pip', '--python', self.root / 'bin/python', 'install', '--no-deps']
        command += ['--no-index', '--no-build-isolation', *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'ICCONV_MM_EXT': 'off'})
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    def run(self, *command: str | Path) -> subprocess.CompletedProcess:
        """Runs a command in the workspace; a question of mim gets no answer."""
        env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        env |= {'PATH': f'{self.root}/bin{os.pathsep}{env["PATH"]}', 'PYTHONWARNINGS': 'ignore', 'OMP_NUM_THREADS': '1'}
        env |= {'PYTHONPATH': self.path} if self.path else {}
        where, none = self.workspace.root, subprocess.DEVNULL
        return subprocess.run(list(map(str, command)), cwd=where, env=env, capture_output=True, text=True, stdin=none)


@pytest.fixture(scope='module')
def sites(repo, workspace, tmp_path_factory) -> dict[str, Site]:
    root = tmp_path_factory.mktemp('sites')
    by_package = {}
    for number, package in enumerate((WHEEL, EDITABLE, CLONE)):
        tree = copy_tracked(repo, root / f'tree{number}')
        site = by_package[package] = Site(root / f'site{number}', workspace)
        if package == CLONE:
            site.path = str(tree)
        else:
            site.install(*(['-e'] if package == EDITABLE else []), tree)
    return by_package


@pytest.fixture
def config(repo, workspace, tmp_path):
    """Gives the path of a library's miniature config, and options that end its run soon."""

    def find(library: str) -> tuple[str, list[str]]:
        if library in CONFIGS:
            return workspace.config(CONFIGS[library]), short(1)
        data = labelled.folders(tmp_path / 'data')
        cfg = config_for(
            data, 'classification', 'ic_resnet18', 64, 1, work_dir=tmp_path / 'own', pretrained='none'
        )  # fmt: skip
        return cfg.filename, []

    return find


@pytest.mark.parametrize('route', ROUTES, ids=lambda route: f'{route.package}-{route.command}')
def test_route(route, column, sites, config, repo, request):
    if not versions.is_installed(route.library):
        pytest.skip(f"could not import '{route.library}'")
    site = sites[route.package or WHEEL]
    path, options = config(route.library)
    out = site.workspace.root / 'runs' / request.node.name.replace('/', '_').replace(' ', '_')
    words = route.command.split()
    if 'icconv_mm' in words:
        path = Path(path).name
    words[words.index('CONFIG')] = path
    if route.command == TOOL:
        words = [site.root / 'bin/python', Path(site.path, 'tools/train.py'), path]
    done = site.run(*words, '--work-dir', out, *options)
    printed = done.stdout[-2000:] + done.stderr[-2000:]
    assert (done.returncode == 0) == (route.served[column] == YES), printed
    checkpoints = [file.name for file in out.glob('*.pth')]
    assert bool(checkpoints) == (route.served[column] == YES)
    if route.command == OWN and checkpoints:
        others_of_mim(site, path, out, checkpoints[0], options)


def others_of_mim(site: Site, name: str, out: Path, checkpoint: str, options: list[str]) -> None:
    """mim test and mim run, for the trained ``checkpoint``; ``name`` is the config's."""
    done = site.run('mim', 'test', 'icconv_mm', name, '-C', out / checkpoint, '--work-dir', out / 'test', *options)
    assert done.returncode == 0 and 'bbox_mAP' in done.stdout + done.stderr, done.stderr[-2000:]
    command = 'mim', 'run', 'icconv_mm', 'browse_dataset', out / name, '--not-show', '--count', '1', '--output-dir'
    done = site.run(*command, out / 'browsed')
    assert done.returncode == 0 and len(list((out / 'browsed').iterdir())) == 1, done.stderr[-2000:]


def test_what_serves_instead_is_served():
    served = [{route.command for route in ROUTES if route.served[index] == YES} for index in range(len(STACKS))]
    instead = [(index, said) for route in ROUTES for index, said in enumerate(route.served) if 'CONFIG' in said]
    assert instead and all(said in served[index] for index, said in instead)


def test_installed_names_are_those_of_the_table(column):
    """A new version of mim is tried before the page names it."""
    mim = list(STACKS)[column].split(',')[0].split()
    assert installed_here()[mim[0]] == mim[1]


def test_a_second_run_in_the_folder_of_an_editable_checkout(column, sites, workspace):
    """A copy of the config in ``work_dirs`` of the checkout: the path serves; onedl-mim finds the name twice."""
    site = sites[EDITABLE]
    tree = Path(site.run('python', '-c', 'import icconv_mm; print(icconv_mm.__path__[0])').stdout.strip()).parent
    copy = tree / 'work_dirs/run' / Path(DETECTION).name
    copy.parent.mkdir(parents=True)
    shutil.copy(tree / 'configs' / DETECTION, copy)
    arguments = '--work-dir', workspace.root / 'runs/second', *short(1)
    by_name = site.run('mim', 'train', 'icconv_mm', Path(DETECTION).name, *arguments)
    by_path = site.run('mim', 'train', 'icconv_mm', tree / 'configs' / DETECTION, *arguments)
    shutil.rmtree(copy.parent)
    assert by_path.returncode == 0, by_path.stderr[-2000:]
    assert (by_name.returncode == 0) == list(STACKS)[column].startswith('openmim'), by_name.stderr[-2000:]
