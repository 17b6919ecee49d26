"""The libraries that the package requires: supported versions, their check, and the commands of the tools."""

import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path

from icconv_mm.errors import MissingLibraryError
from icconv_mm.invocation import SCRIPT, called_as

# Import name -> (distributions that provide it, lowest supported, first unsupported). The maintained ``onedl-*`` forks
# keep the import names, so the version is read from the distribution that provides the import name.
SUPPORTED: dict[str, tuple[tuple[str, ...], str, str]] = {
    'torch': (('torch',), '2.1', '3'),
    'mmengine': (('mmengine', 'mmengine-lite', 'onedl-mmengine'), '0.10', '1'),
    'mmcv': (('mmcv', 'mmcv-lite', 'onedl-mmcv'), '2.0.0', '3'),
    'mmdet': (('mmdet', 'onedl-mmdetection', 'onedl-mmdet'), '3.0', '4'),
    'mmseg': (('mmsegmentation', 'onedl-mmsegmentation'), '1.0', '2'),
    'mmpose': (('mmpose', 'onedl-mmpose'), '1.2', '2'),
    'mmpretrain': (('mmpretrain', 'onedl-mmpretrain'), '1.0', '2'),
}
_PACKAGE = Path(__file__).resolve().parent
FOUNDATION = ('torch', 'mmengine', 'mmcv')  # required by every task library
_COMMANDS = {'infer': 'predict', 'prepare_data': 'data', 'train': 'train', 'test': 'test', 'export': 'export'}


def _own_command() -> str | None:
    """Returns how a user calls the command ``icconv``, if this process is one."""
    word = called_as()
    if word == '-m':
        return 'python -m icconv_mm'
    return word and ('icconv' if shutil.which('icconv') == SCRIPT else shlex.quote(word))


OWN_COMMAND = _own_command()


def is_tool() -> bool:
    """Returns whether this process is a script of the folder ``tools``."""
    return sys.argv[0].endswith('.py') and _PACKAGE.parent / 'tools' in Path(sys.argv[0]).resolve().parents


def _release(version: str) -> tuple[int, ...]:
    """Returns the numeric release of a version string: ``'2.11.0+cu130'`` -> ``(2, 11, 0)``."""
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(part) for part in match.group().split('.')) if match else ()


def installed(name: str) -> tuple[str, str] | None:
    """Returns the distribution and version that provide an import name; None if it is not installed."""
    # imported here: it takes as long as all else that `icconv --help` needs
    from importlib.metadata import PackageNotFoundError, version

    for distribution in SUPPORTED[name][0]:
        try:
            return distribution, version(distribution)
        except PackageNotFoundError:
            continue
    return None


def is_installed(name: str) -> bool:
    """Returns whether the library can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None


def check_versions(names: tuple[str, ...] = FOUNDATION) -> None:
    """Raises MissingLibraryError if a library is missing or its version unsupported; names both versions.

    Args:
        names: Import names to check.
    """
    problems = []
    for name in names:
        distributions, low, high = SUPPORTED[name]
        version = installed(name)
        if version is None:
            if not is_installed(name):
                problems.append(
                    f'{name}: not installed; icconv_mm supports {" or ".join(distributions)} >={low}, <{high}'
                )
            continue  # importable without metadata (a source tree on the path): no version to compare
        if not _release(low) <= _release(version[1]) < _release(high):
            problems.append(f'{name}: found {version[0]} {version[1]}; icconv_mm supports >={low}, <{high}')
    if problems:
        raise MissingLibraryError('icconv_mm cannot run with the installed libraries:\n  ' + '\n  '.join(problems))


def explain_import(error: Exception, what: str) -> None:
    """Raises MissingLibraryError for an exception of an import that a command mends.

    These are the missing compiled operators of mmcv, and a transformers beside which mmpretrain cannot be imported.

    Args:
        error: The exception.
        what: What needs the import.
    """
    # mmengine raises the errors of what it builds anew, without the name
    name = (error.name or '') if isinstance(error, ImportError) else ''
    is_of_mmcv = name == 'mmcv' or name.startswith('mmcv.ops') or 'mmcv._ext' in str(error)
    if isinstance(error, ImportError) and is_of_mmcv:
        raise MissingLibraryError(
            f'{what} needs the compiled operators of mmcv ({error}): {command_for_operators()}'
        ) from error
    # mmpretrain derives from what it did not find in transformers
    is_of_mmpretrain = isinstance(error, TypeError) and 'NoneType takes no arguments' in str(error)
    if is_of_mmpretrain and is_installed('transformers'):
        from importlib.metadata import version

        raise MissingLibraryError(
            f'{what} fails in the import of mmpretrain, which does not work beside transformers '
            f'{version("transformers")}: `pip install "transformers<4.49"`, or uninstall either'
        ) from error


def command_for_operators() -> str:
    """Returns the command that puts an mmcv with compiled operators in place of the installed one."""
    name, _ = installed('mmcv') or ('mmcv', '')
    if name != 'onedl-mmcv':
        return '`python -m icconv_mm.install_openmmlab --yes`'
    torch = installed('torch')
    # the fork's own build asks for C++17, which the headers of torch 2.14 refuse; the installer replaces that
    if torch and _release(torch[1]) >= (2, 14):
        return '`python -m icconv_mm.install_openmmlab --torch 2.15 --yes`'
    return f'`pip install --no-build-isolation --no-cache-dir --no-deps --force-reinstall {name}`'


def command_of(tool: str, *arguments: str) -> str:
    """Returns the command of a tool for a message; it depends on where the package is installed.

    Args:
        tool: Name of the script, without its suffix: ``'convert_checkpoint'``.
        arguments: Arguments of the command.

    Returns:
        The command in backticks, quoted for a shell: in a process of ``icconv``, for tools that it has, ``icconv
        train``; in a checkout ``python tools/convert_checkpoint.py``, with the whole path if the work is elsewhere; in
        an installation, which has the scripts where mim finds them, ``mim run icconv_mm convert_checkpoint`` or,
        without mim, ``python`` with the path.
    """
    if OWN_COMMAND is not None and tool in _COMMANDS:
        command = f'{OWN_COMMAND} {_COMMANDS[tool]}'
    elif (script := _PACKAGE.parent / 'tools' / f'{tool}.py').is_file():
        is_here = Path.cwd() == _PACKAGE.parent
        command = f'python {shlex.quote(str(script.relative_to(_PACKAGE.parent) if is_here else script))}'
    elif is_installed('mim'):
        command = f'mim run icconv_mm {tool}'
    else:
        command = f'python {shlex.quote(str(_PACKAGE / ".mim/tools" / tool))}.py'
    return f'`{" ".join((command, *map(shlex.quote, arguments)))}`'
