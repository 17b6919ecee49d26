"""A C++ compiler that reads torch's headers once for a whole build instead of once for every file.

Builds call it as their compiler (`fast_compiler` in mmcv_wheel.py). It compiles without debug information, which nobody
reads here, and with the header ICCONV_MM_HEADER precompiled under the flags of the build: a file that includes torch
takes a third of the time or less. What fails that way goes to the compiler as it came; the build's log says so.
ICCONV_MM_CXX_STANDARD, if it says anything, takes the place of the language standard that a build asks for.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path


def say(text: str) -> None:
    print(f'fast_cxx: {text}', flush=True)


def split(arguments: list[str]) -> tuple[list[str], str]:
    """The flags that a header must be compiled with to serve this call, and the source."""
    flags, source, rest = [], '', iter(arguments)
    for argument in rest:
        if argument in ('-o', '-MF'):
            next(rest)
        elif argument.endswith(('.cpp', '.cc', '.cxx')) and not argument.startswith('-'):
            source = argument
        elif argument not in ('-c', '-MMD', '-MD'):
            flags.append(argument)
    return flags, source


def precompiled(compiler: str, flags: list[str], text: str, folder: Path) -> Path | None:
    """The header `text` compiled with `flags`; None while another call compiles it, and where the compiler cannot.

    gcc and clang both take NAME.h.gch for `-include NAME.h`; where they find that it does not fit they read NAME.h.
    """
    name = hashlib.sha256('\0'.join([compiler, text, *flags]).encode()).hexdigest()[:16]
    header, done, failed = (folder / f'{name}{suffix}' for suffix in ('.h', '.h.gch', '.failed'))
    if not done.is_file() and not failed.is_file():
        with open(folder / f'{name}.lock', 'w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # a core has better to do than to wait
                return None
            header.write_text(text)
            unfinished = header.with_suffix('.part')
            command = [compiler, *flags, '-x', 'c++-header', str(header), '-o', str(unfinished)]
            if subprocess.run(command).returncode == 0:
                unfinished.rename(done)
            else:
                failed.touch()
                say(f'{compiler} does not precompile headers; the build goes on without, and takes longer')
    return header if done.is_file() else None


def main(arguments: list[str]) -> int:
    compiler, folder = os.environ['ICCONV_MM_CXX'], Path(os.environ['ICCONV_MM_HEADERS'])
    if standard := os.environ.get('ICCONV_MM_CXX_STANDARD'):
        arguments = [f'-std={standard}' if argument.startswith('-std=') else argument for argument in arguments]
    if '-c' in arguments:
        fast = [*arguments, '-g0']
        flags, source = split(fast)
        try:
            header = precompiled(compiler, flags, os.environ['ICCONV_MM_HEADER'], folder)
        except OSError as error:
            say(f'no precompiled header: {error}')
            header = None
        if header and subprocess.run([compiler, '-include', str(header), *fast]).returncode == 0:
            return 0
        if header:
            say(f'once more without the precompiled header: {source}')
        else:
            arguments = fast
    os.execvp(compiler, [compiler, *arguments])


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
