"""Which command of mim serves which installed libraries: the table of docs/install.md, which the tests try."""

from typing import NamedTuple

# Column of the table -> the distributions of mim and of the libraries.
STACKS = {
    'openmim 0.3.9, OpenMMLab': ('openmim', 'mmengine'),
    'onedl-mim 0.5.1, forks': ('onedl-mim', 'onedl-mmengine'),
    'openmim 0.3.9, forks': ('openmim', 'onedl-mmengine'),
}
YES = 'yes'
OWN = 'mim train icconv_mm CONFIG'
TOOL = 'python tools/train.py CONFIG'
NO_FORK = 'no: mmpose has no fork'


class Route(NamedTuple):
    """A row of the table.

    Attributes:
        package: How icconv_mm is installed; '' if it does not matter.
        command: The command, for CONFIG by its name where the package is icconv_mm, and by its path elsewhere.
        library: The import name of the library whose miniature config is CONFIG.
        served: By column: 'yes', the command that serves instead, or why none does.
    """

    package: str
    command: str
    library: str
    served: tuple[str, ...]


WHEEL, EDITABLE, CLONE = '`pip install .`', '`pip install -e .`', 'a clone alone'
ROUTES = (
    Route(WHEEL, OWN, 'mmdet', (YES, YES, YES)),
    Route(EDITABLE, OWN, 'mmdet', (YES, YES, YES)),
    Route(CLONE, OWN, 'mmdet', (TOOL, TOOL, TOOL)),
    Route(CLONE, TOOL, 'mmdet', (YES, YES, YES)),
    Route('', 'mim train mmdet CONFIG', 'mmdet', (YES, *2 * ['mim train onedl-mmdetection CONFIG'])),
    Route('', 'mim train onedl-mmdetection CONFIG', 'mmdet', ('mim train mmdet CONFIG', YES, YES)),
    Route('', 'mim train mmsegmentation CONFIG', 'mmseg', (YES, OWN, OWN)),
    Route('', 'mim train onedl-mmsegmentation CONFIG', 'mmseg', ('mim train mmsegmentation CONFIG', OWN, OWN)),
    Route('', 'mim train mmpretrain CONFIG', 'mmpretrain', (YES, YES, 'mim train onedl-mmpretrain CONFIG')),
    Route('', 'mim train onedl-mmpretrain CONFIG', 'mmpretrain', ('mim train mmpretrain CONFIG', YES, YES)),
    Route('', 'mim train mmpose CONFIG', 'mmpose', (YES, NO_FORK, NO_FORK)),
)  # fmt: skip


def table() -> str:
    """Returns the table in Markdown."""
    rows = [['icconv_mm', 'command', *STACKS], ['---'] * (2 + len(STACKS))]
    for route in ROUTES:
        served = (command if command in (YES, NO_FORK) else f'no: `{command}`' for command in route.served)
        rows.append([route.package, f'`{route.command}`', *served])
    return '\n'.join(f'| {" | ".join(row)} |'.replace('|  |', '| |') for row in rows).replace('| --- ', '|---') + '\n'
