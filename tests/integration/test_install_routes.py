"""The ways to install the package, each in a clean virtual environment of its own; nothing is fetched.

An environment gets the distributions of a route, and what these require, by links to those of the one that runs the
tests; nothing else can be imported there.
"""

import importlib.metadata
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from linked_packages import link, requirements
from packaging.requirements import Requirement

from icconv_mm import versions

pytestmark = pytest.mark.slow

RUN = """
import time
begin = time.perf_counter()
import torch
torch_seconds = time.perf_counter() - begin
begin = time.perf_counter()
import icconv_mm
print(f'torch {torch_seconds:.2f} s, icconv_mm {time.perf_counter() - begin:.2f} s')
x = torch.randn(1, 3, 64, 64)
net = icconv_mm.create_model('ic_resnet18', pattern='geometric_d4', features_only=True).eval()
maps = net(x)
torch.testing.assert_close(icconv_mm.deploy(net)(x), maps, rtol=1e-3, atol=1e-4)
neck = icconv_mm.necks.FPT([64, 128, 256, 512], 32)
assert [level.shape[1] for level in neck(maps)] == 4 * [32]
icconv_mm.necks.SEPC(32, 32, 4, pconv_deform=True, lcconv_deform=True, ibn=True, lcconv_padding=1)(neck(maps))
from icconv_mm.patterns.search import edo_search
supernet = icconv_mm.create_model('ic_resnet18', supernet_d_max=2)
searched = icconv_mm.create_model('ic_resnet18', pattern=edo_search(supernet, 2))
searched(x)
"""


@pytest.fixture
def clean(tmp_path, repo):
    """Makes an environment with the given distributions and this checkout; gives a function that runs code in it."""

    def make(*names: str):
        venv.create(tmp_path / 'venv', symlinks=True)
        site = Path(sysconfig.get_path('purelib', vars={'base': str(tmp_path / 'venv')}))
        link(requirements(list(names)), site)
        (site / 'checkout').mkdir()
        for package in ('icconv_mm', 'icconv_mm_runtime'):
            (site / 'checkout' / package).symlink_to(repo / package)
        (site / 'checkout.pth').write_text(str(site / 'checkout'))

        def run(code: str) -> str:
            command = [tmp_path / 'venv/bin/python', '-I', '-W', 'ignore', '-c', code]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
            return done.stdout

        run.site = site
        return run

    return make


def lacks(*names: str) -> str:
    return f'import importlib.util\nassert not [name for name in {names} if importlib.util.find_spec(name)]\n'


def test_torch_alone(clean):
    run = clean('torch', 'numpy')
    missing = lacks('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpose', 'mmpretrain', 'cv2', 'yaml', 'rich', 'scipy')
    printed = run(missing + RUN)
    assert 'icconv_mm' in printed
    error = run('try:\n    import icconv_mm.registry\nexcept ImportError as error:\n    print(error)\n')
    assert 'mmengine: not installed' in error and 'mmcv: not installed' not in error


@pytest.fixture
def project(repo):
    tomllib = pytest.importorskip('tomllib')
    return tomllib.loads((repo / 'pyproject.toml').read_text())['project']


def test_torch_alone_with_reports(clean, project, repo, tmp_path):
    """The extra ``tools``: a pattern as a table and an image, and rules of a conversion."""
    run = clean('torch', 'numpy', *(Requirement(text).name for text in project['optional-dependencies']['tools']))
    (tmp_path / 'rules.yml').write_text("- {pattern: 'ema.*', replace: null}")
    printed = run(
        lacks('mmengine', 'mmcv', 'mmdet') + 'import icconv_mm, rich\n'
        f'import sys; sys.path.append({str(repo / "tools")!r})\n'
        'from show_pattern import draw_patterns, pattern_table\n'
        'net = icconv_mm.create_model("ic_resnet18", pattern="geometric_d4")\n'
        'patterns = [m.pattern for m in net.modules() if isinstance(m, icconv_mm.layers.ICConv2d)]\n'
        'rich.print(pattern_table(patterns, "geometric"))\n'
        'draw_patterns(patterns, "pattern.png", "geometric")\n'
        'assert len(icconv_mm.checkpoints.load_rules("rules.yml")) == 1\n'
    )
    assert 'geometric' in printed and (tmp_path / 'pattern.png').stat().st_size > 1000


def test_mmengine_and_mmcv_lite(clean):
    """mmcv-lite is mmcv without its compiled library."""
    run = clean('torch', 'numpy', versions.installed('mmengine')[0], 'opencv-python', 'pillow')
    mmcv = Path(importlib.metadata.distribution(versions.installed('mmcv')[0]).locate_file('mmcv'))
    (run.site / 'mmcv').mkdir()
    for part in mmcv.iterdir():
        if not part.name.startswith('_ext'):
            (run.site / 'mmcv' / part.name).symlink_to(part)
    link(requirements(['addict', 'packaging', 'pyyaml', 'yapf']), run.site)
    printed = run(
        lacks('mmdet', 'mmseg', 'mmpose', 'mmpretrain', 'mmcv._ext') + RUN + 'from icconv_mm.registry import MODELS\n'
        'net = MODELS.build(dict(type="icconv_mm.ICResNet", depth=18, pattern="dense", base_channels=8))\n'
        'from mmengine.model import BaseModule\n'
        'assert isinstance(net, BaseModule) and type(neck.laterals[0]).__module__.startswith("mmcv.")\n'
        'try:\n'
        '    MODELS.build(dict(type="ICResNet", depth=18, pattern="dense", dcn=dict(type="DCNv2"), '
        'stage_with_dcn=[True] * 4))\n'
        'except ValueError as error:\n'
        '    print(error)\n'
    )
    missing = "conv_cfg of type 'DCNv2' needs the compiled operators of mmcv (No module named 'mmcv._ext')"
    assert f'{missing}: `python -m icconv_mm.install_openmmlab --yes`' in printed
