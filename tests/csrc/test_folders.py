"""The order of the sources in C++ (CONTRIBUTING.md): which folder includes which, and the namespace of each."""

import re
from pathlib import Path

CSRC = Path(__file__).resolve().parents[2] / 'csrc'
SOURCES = sorted(path.relative_to(CSRC) for path in CSRC.rglob('*') if path.is_file())
DEVICES = ('cpu', 'cuda')
WITH_ONE_NAMESPACE = (*DEVICES, 'python', 'testing')


def top(path: Path) -> str:
    """The first folder of a path in csrc; '' for a file in csrc itself."""
    return path.parts[0] if len(path.parts) > 1 else ''


def namespace(path: Path) -> str:
    folders = () if top(path) == 'common' else path.parts[:-1]
    return '::'.join(['icconv_mm', *(folders[:1] if top(path) in WITH_ONE_NAMESPACE else folders)])


def included(path: Path) -> list[Path]:
    """Files of csrc that a file includes."""
    names = re.findall(r'^#include "(.+)"', (CSRC / path).read_text(), re.MULTILINE)
    return [((CSRC / path).parent / name).resolve().relative_to(CSRC) for name in names]


def test_nothing_includes_what_is_of_another_device():
    pairs = [(path, each) for path in SOURCES for each in included(path)]
    closed = [(path, each) for path, each in pairs if top(each) in (*DEVICES, 'testing') and top(each) != top(path)]
    assert pairs and [f'{path} includes {each}' for path, each in closed] == []


def test_namespaces_are_the_folders():
    found = {path: re.findall(r'^namespace (icconv_mm[\w:]*) \{', (CSRC / path).read_text(), re.M) for path in SOURCES}
    assert any(found.values())
    assert {str(path): names for path, names in found.items() if set(names) - {namespace(path)}} == {}
    assert namespace(Path('inception_conv/kn2row/plan.h')) == 'icconv_mm::inception_conv::kn2row'
    assert namespace(Path('cuda/pyconv/tiled.cu')) == 'icconv_mm::cuda'
    assert namespace(Path('common/patch.h')) == namespace(Path('ops.cpp')) == 'icconv_mm'
