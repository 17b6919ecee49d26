"""The wheel of mmcv: compiled once, its sources as one, and each on its own where that fails."""

import tarfile

import pytest

import mmcv_wheel
import setup_env
from processes import SetupError

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


@pytest.mark.parametrize(
    ('torch', 'wanted', 'standard'), [('2.11', 'mmcv==2.1.0', ''), ('2.15', 'onedl-mmcv==2.3.6', 'c++20')]
)
@pytest.mark.parametrize('joined_compiles', [True, False])
def test_build(tmp_path, monkeypatch, capsys, folder, joined_compiles, torch, wanted, standard):
    """A build that fails with the joined source is repeated without it; the wheel is kept, the build is not."""
    work, target, built = tmp_path / 'work', tmp_path / 'wheels', []
    work.mkdir()
    target.mkdir()

    def run(command, label, log, **options):
        if 'download' in command:
            assert command[-1] == wanted
            (tmp_path / 'setup.py').touch()
            with tarfile.open(work / 'mmcv-2.1.0.tar.gz', 'w:gz') as archive:
                archive.add(tmp_path / 'setup.py', 'mmcv-2.1.0/setup.py')
                archive.add(folder, 'mmcv-2.1.0/mmcv/ops/csrc/pytorch')
            return
        assert options['env']['ICCONV_MM_CXX_STANDARD'] == standard
        sources = sorted(contents(options['cwd'] / 'mmcv/ops/csrc/pytorch'))
        built.append(sources)
        if 'joined.cpp' in sources and not joined_compiles:
            raise SetupError('it fails')
        (work / 'dist').mkdir()
        (work / 'dist/mmcv.whl').write_text('wheel')

    monkeypatch.setattr(mmcv_wheel, 'run', run)
    wheel = mmcv_wheel.build_mmcv(setup_env.Environment(tmp_path / 'venv', torch, 'cpu'), work, target)
    assert wheel.read_text() == 'wheel' and not work.exists()
    assert built == [['joined.cpp', 'pybind.cpp'], sorted(SOURCES)][: 1 if joined_compiles else 2]
    assert ('each source on its own' in capsys.readouterr().out) != joined_compiles
