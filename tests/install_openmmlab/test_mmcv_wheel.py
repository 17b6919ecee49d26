"""mmcv's sources are compiled as one, and each on its own where that fails."""

import tarfile
from types import SimpleNamespace

import pytest

from icconv_mm.install_openmmlab import mmcv_wheel
from icconv_mm.install_openmmlab.processes import SetupError

SOURCES = {'nms.cpp': 'int nms;\n', 'pybind.cpp': 'int pybind;\n', 'roi_align.cpp': 'int roi_align;\n'}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'pytorch'
    path.mkdir()
    for name, text in SOURCES.items():
        (path / name).write_text(text)
    return path


def contents(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob('*.cpp')}


def test_sources_are_joined_and_separated_again(folder):
    for _ in range(2):  # an interrupted build goes on
        assert mmcv_wheel.join_sources(folder, ['pybind.cpp'])
        assert contents(folder) == {
            'pybind.cpp': SOURCES['pybind.cpp'],
            'joined.cpp': '#include "joined/nms.cpp"\n#include "joined/roi_align.cpp"\n',
        }
        assert (folder / 'joined/nms.cpp').read_text() == SOURCES['nms.cpp']
    mmcv_wheel.separate_sources(folder)
    assert contents(folder) == SOURCES


def test_sources_may_be_elsewhere(tmp_path):
    assert not mmcv_wheel.join_sources(tmp_path / 'pytorch')


@pytest.mark.parametrize('joined_compiles', [True, False])
def test_build(tmp_path, monkeypatch, capsys, folder, joined_compiles):
    """A build that fails with the joined source is repeated without it; the wheel is kept, the build is not."""
    work, target, built = tmp_path / 'work', tmp_path / 'wheels', []
    work.mkdir()
    target.mkdir()

    def run(command, label, log, **options):
        if 'download' in command:
            (tmp_path / 'setup.py').touch()
            with tarfile.open(work / 'mmcv-2.1.0.tar.gz', 'w:gz') as archive:
                archive.add(tmp_path / 'setup.py', 'mmcv-2.1.0/setup.py')
                archive.add(folder, 'mmcv-2.1.0/mmcv/ops/csrc/pytorch')
            return
        sources = sorted(contents(options['cwd'] / 'mmcv/ops/csrc/pytorch'))
        built.append(sources)
        if 'joined.cpp' in sources and not joined_compiles:
            raise SetupError('it fails')
        (work / 'dist').mkdir()
        (work / 'dist/mmcv.whl').write_text('wheel')

    monkeypatch.setattr(mmcv_wheel, 'run', run)
    env = SimpleNamespace(python='python', mmcv='mmcv', torch='2.11', device='cpu')
    wheel = mmcv_wheel.build_mmcv(env, '2.1.0', work, target)
    assert wheel.read_text() == 'wheel' and not work.exists()
    assert built == [['joined.cpp', 'pybind.cpp'], sorted(SOURCES)][: 1 if joined_compiles else 2]
    assert ('each source on its own' in capsys.readouterr().out) != joined_compiles
