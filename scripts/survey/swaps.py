"""What takes the place of a backbone in a config of the libraries, and the page that says what came of it."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from icconv_mm import versions
from icconv_mm.errors import sentence
from icconv_mm.utils import task_folders

LIBRARIES = tuple(task_folders.TASKS)
PAGE = Path(__file__).parents[2] / 'docs/compatibility.md'
CONFIGS_MARK = '<!-- made by scripts/compatibility.py from here on -->\n'
FAMILIES_MARK = '<!-- made by scripts/families.py from here on -->\n'
PATTERN = 'geometric_d4'
# the change of one line, where a type of ours takes the place of one of theirs
ONE_LINE = {
    'IC': {name: f'icconv_mm.IC{name}' for name in ('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt')},
    'PyConv': dict.fromkeys(('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt'), 'icconv_mm.PyConvResNet'),
    'PyConvHG': dict.fromkeys(('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt'), 'icconv_mm.PyConvHGResNet'),
}
WRAPPERS = {'ICBackbone': {'pattern': PATTERN}, 'PyConvBackbone': {}}


class Case(NamedTuple):
    """A backbone as a config has it."""

    library: str
    config: str
    backbone: dict

    @property
    def kind(self) -> str:
        """The type without its scope."""
        return self.backbone['type'].rpartition('.')[2]


def swaps(case: Case) -> Iterator[tuple[str, dict]]:
    """The backbones that take the place of the case's: by the change of one line, then within a wrapper."""
    plain = {key: value for key, value in case.backbone.items() if key not in ('init_cfg', 'pretrained')}
    for swap, types in ONE_LINE.items():
        if case.kind in types and (swap != 'PyConvHG' or plain['depth'] >= 50):
            yield swap, plain | {'type': types[case.kind]} | ({'pattern': PATTERN} if swap == 'IC' else {})
    for wrapper, settings in WRAPPERS.items():
        yield wrapper, {'type': f'icconv_mm.{wrapper}', 'backbone': plain, **settings}


def installed(*names: str) -> list[str]:
    """Distributions and versions of libraries, as tables name them."""
    return [' '.join(versions.installed(name)) for name in names]


def configs_of(library: str) -> Path:
    """The folder of the configs that a library ships."""
    return Path(find_spec(library).origin).parent / '.mim/configs'


def said_by(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    return f'{type(error).__name__}: {sentence(error)}'.splitlines()[0]


def write_page(page: Path, mark: str, text: str) -> None:
    """Replaces what a page has below a mark."""
    before = page.read_text() if page.exists() else ''
    page.write_text(put_below(before, mark, f'{text}\n'))


def put_below(page: str, mark: str, text: str) -> str:
    """The page with what is below a mark, up to a heading or another mark, replaced by a text."""
    before, _, after = page.partition(mark)
    stops = (after.find(stop) for stop in ('\n## ', CONFIGS_MARK, FAMILIES_MARK))
    end = min((found for found in stops if found >= 0), default=len(after))
    return f'{before}{mark}\n{text}{after[end:]}'
