"""Scripts of ``tools/``, as messages name them."""

from pathlib import Path

from icconv_mm import versions

_PACKAGE = Path(__file__).resolve().parents[1]


def command_of(tool: str, *arguments: str) -> str:
    """The command of a tool as a message shows it, which depends on where the package is.

    Args:
        tool: Name of the script, without its suffix: ``'convert_checkpoint'``.
        arguments: Arguments of the command.

    Returns:
        In backticks: in a checkout ``python tools/convert_checkpoint.py``; from an installation, which has the scripts
        where mim looks for them, ``mim run icconv_mm convert_checkpoint`` or, without mim, ``python`` with the path.
    """
    if (_PACKAGE.parent / 'tools' / f'{tool}.py').is_file():
        command = f'python tools/{tool}.py'
    elif versions.is_installed('mim'):
        command = f'mim run icconv_mm {tool}'
    else:
        command = f'python {_PACKAGE / ".mim/tools" / tool}.py'
    return f'`{" ".join((command, *arguments))}`'
