"""Runs the command ``icconv``: a module for each of its commands, which the scripts of ``tools`` run as well.

Their options need the standard library only, so that help and completion take a moment.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from types import ModuleType

import icconv_mm
from icconv_mm import versions
from icconv_mm.app.commands import command_line, data, export, predict, search, test, train
from icconv_mm_runtime import process

COMMANDS = {'train': train, 'test': test, 'predict': predict, 'export': export, 'data': data, 'search': search}


def icconv_parser() -> ArgumentParser:
    """Returns the parser of the command ``icconv``."""
    docs = {name: command.__doc__ for name, command in COMMANDS.items()}
    parser, below = command_line.parser_of_commands('icconv', 'Train, test, use and export networks for images.', docs)
    parser.add_argument('--version', action='version', version=f'icconv_mm {icconv_mm.__version__}')
    for name, command in COMMANDS.items():
        command.add_arguments(below[name])
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs ``icconv`` with the words of the command line."""
    with process.command():
        _run(argv)


def _run(argv: Sequence[str] | None) -> None:
    parser = icconv_parser()
    if '_ARGCOMPLETE' in os.environ:  # a shell completes the line
        import argcomplete

        argcomplete.autocomplete(parser)
    args = parser.parse_args(argv)
    command = COMMANDS[vars(args).pop('command')]
    command_line.find_files(args)
    icconv_mm.extend_mmengine()
    _run_command(command, args)


def run_tool(command: ModuleType, doc: str, argv: Sequence[str] | None = None) -> None:
    """Runs a command as a script of ``tools``, whose help is ``doc``."""
    with process.command():
        parser = command_line.parser(doc)
        command.add_arguments(parser, is_tool=True)
        args = parser.parse_args(argv)
        command_line.find_files(args)
        _run_command(command, args)


def _run_command(command: ModuleType, args: Namespace) -> None:
    if command is not data:
        versions.check_versions()  # the error names the missing libraries
    command.run(args)
