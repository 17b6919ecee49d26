"""Swap the backbone of every config that the installed libraries ship for ours, run both, and write what works."""

import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from icconv_mm import versions
from icconv_mm.app.commands import command_line
from icconv_mm.config_tree import walk_dicts
from icconv_mm.errors import message_of
from icconv_mm.registry import LIBRARIES

PAGE = Path(__file__).resolve().parents[2] / 'docs/compatibility.md'
MARK = '<!-- made by tools/dev/compatibility.py from here on -->\n'
COLUMNS = {
    'IC': 'IC-ResNet(Xt) by one line',
    'PyConv': 'PyConvResNet by one line',
    'PyConvHG': 'PyConvHGResNet by one line, depth 50 and more',
    'ICBackbone': '`ICBackbone` around it',
    'PyConvBackbone': '`PyConvBackbone` around it',
}
WRAPPED = re.compile(r'ResNe|Res2Net|RegNet')  # types tried within a wrapper
_KEYS = re.compile(r'(teacher_|rfp_)?backbone(_cfg)?')

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


class Outcome(NamedTuple):
    """What became of a case: ``error`` is empty where the shapes are those of the original."""

    case: Case
    swap: str
    error: str


def configs_of(library: str) -> Path:
    """The folder of the configs that a library ships."""
    return Path(find_spec(library).origin).parent / '.mim/configs'


def find_cases(library: str) -> Iterator[Case]:
    """The backbones of the family in every config that a library ships, config by config."""
    folder = configs_of(library)
    for path in sorted(folder.rglob('*.py')):
        if '_base_' in path.parts:
            continue
        try:
            model = Config.fromfile(path, import_custom_modules=False).get('model')
        except Exception:  # some of them have bases that are not shipped, or syntax of another Python
            continue
        for backbone in _backbones(model):
            yield Case(library, path.relative_to(folder).as_posix(), backbone)


def _backbones(model) -> Iterator[dict]:
    for node in walk_dicts(model):
        for key, value in node.items():
            if _KEYS.fullmatch(str(key)) and isinstance(value, dict) and WRAPPED.search(str(value.get('type'))):
                yield dict(value)


def swaps(case: Case) -> Iterator[tuple[str, dict]]:
    """The backbones that take the place of the case's: by the change of one line, then within a wrapper."""
    plain = {key: value for key, value in case.backbone.items() if key not in ('init_cfg', 'pretrained')}
    for swap, types in ONE_LINE.items():
        if case.kind in types and (swap != 'PyConvHG' or plain['depth'] >= 50):
            yield swap, plain | {'type': types[case.kind]} | ({'pattern': PATTERN} if swap == 'IC' else {})
    for wrapper, settings in WRAPPERS.items():
        yield wrapper, {'type': f'icconv_mm.{wrapper}', 'backbone': plain, **settings}


def check_case(case: Case) -> list[Outcome]:
    """Builds and runs the original and what takes its place on an image of 128 x 128, by shapes alone where possible.

    Returns:
        An outcome for each swap; one alone, of the swap 'original', where the original does not run here.
    """
    try:
        expected = _shapes(case.library, case.backbone)
    except Exception as error:
        return [Outcome(case, 'original', _said_by(error))]
    outcomes = []
    for swap, backbone in swaps(case):
        try:
            got = _shapes(case.library, backbone)
            error = '' if got == expected else f'outputs {got}, expected {expected}'
        except Exception as failure:
            error = _said_by(failure)
        outcomes.append(Outcome(case, swap, error))
    return outcomes


def check_library(library: str, progress: Callable[[list], Iterable] = iter) -> list[Outcome]:
    """The outcomes of all configs of a library; a backbone that several of them have is tried once.

    Args:
        library: Its import name.
        progress: What the distinct backbones are passed through as they are tried.
    """
    importlib.import_module(f'{library}.models')
    alike: dict[str, list[Case]] = {}
    for case in find_cases(library):
        options = sorted(item for item in case.backbone.items() if item[0] not in ('init_cfg', 'pretrained'))
        alike.setdefault(repr(options), []).append(case)
    outcomes = []
    for cases in progress(list(alike.values())):
        tried = check_case(cases[0])
        outcomes += [outcome._replace(case=case) for case in cases for outcome in tried]
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """The outcomes in Markdown: a row for each library and swap, then what does not work, by its error."""
    libraries = list(dict.fromkeys(outcome.case.library for outcome in outcomes))
    lines = ['| library | ' + ' | '.join(COLUMNS.values()) + ' |', '|---' * (len(COLUMNS) + 1) + '|']
    for library in libraries:
        cells = []
        for swap in COLUMNS:
            errors = [outcome.error for outcome in outcomes if (outcome.case.library, outcome.swap) == (library, swap)]
            works = errors.count('')
            cells.append(f'{works} of {len(errors)} ({works / len(errors):.1%})' if errors else '')
        lines.append(f'| {library} | ' + ' | '.join(cells) + ' |')
    failures: dict[tuple, list[str]] = {}
    for case, swap, error in outcomes:
        if error:
            failures.setdefault((case.library, case.kind, swap, error), []).append(case.config)
    lines += [
        '',
        '| library | backbone | swap | configs | the first of them | what it says |',
        '|---|---|---|---|---|---|',
    ]
    for (library, kind, swap, error), configs in sorted(failures.items()):
        said = error.replace('|', '/')
        lines.append(f'| {library} | {kind} | {swap} | {len(configs)} | `{configs[0]}` | {said} |')
    return '\n'.join(lines if failures else lines[:-3])


def _shapes(library: str, backbone: dict) -> list[tuple[int, ...]]:
    try:
        return _shapes_on('meta', library, backbone)
    except Exception:  # mmcv's deformable layers and mmpretrain's constructors need tensors with values
        return _shapes_on('cpu', library, backbone)


@torch.no_grad()
def _shapes_on(device: str, library: str, backbone: dict) -> list[tuple[int, ...]]:
    with DefaultScope.overwrite_default_scope(library), torch.device(device):
        network = MODELS.build(backbone)
        network.eval()
        return [tuple(output.shape) for output in _tensors(network(torch.zeros(1, 3, 128, 128)))]


def _tensors(outputs) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [tensor for part in outputs for tensor in _tensors(part)]


def _said_by(error: Exception) -> str:
    """The kind of an error, and the first line of its message."""
    return f'{type(error).__name__}: {message_of(error)}'.splitlines()[0]


def write_page(page: Path, text: str) -> None:
    """Replace what a page has below the mark, up to a heading."""
    before, _, after = page.read_text().partition(MARK)
    _, heading, rest = after.partition('\n## ')
    page.write_text(f'{before}{MARK}\n{text}\n{heading}{rest}')


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('--libraries', nargs='+', choices=LIBRARIES, help='default: all that are installed')
    parser.add_argument('--page', type=Path, default=PAGE, metavar='FILE', help='where the tables go (%(default)s)')
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug):
        libraries = [name for name in args.libraries or LIBRARIES if versions.is_installed(name)]
        outcomes = []
        for library in libraries:
            outcomes += check_library(library, partial(command_line.progress, description=library))
        installed = (' '.join(versions.installed(name)) for name in ('torch', 'mmcv', *libraries))
        text = f'With {", ".join(installed)}.\n\n{table(outcomes)}'
        write_page(args.page, text)
        print(text)


if __name__ == '__main__':
    main()
