"""Runs exporters of other tools on the annotations of ``ours.py``: ``python tools/dev/exporters/make.py [TOOL ...]``.

Each tool gets an environment of its own, with the version below; what it writes goes to
``tests/data/exporters/TOOL-VERSION/SET``, with a ``truth.json`` for each set.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[2] / 'tests/data/exporters'
# The script, the Python, and the requirements, of which the first names the folder.
TOOLS = {
    'labelme-6': ('labelme_sets.py', 'python3.11', 'labelme==6.3.1'),
    'labelme-7': ('labelme_sets.py', 'python3.12', 'labelme==7.9.1'),
    'datumaro': ('datumaro_sets.py', 'python3.11', 'datumaro==1.13.12'),
    'label-studio': ('label_studio_sets.py', 'python3.11', 'label-studio-sdk==2.1.2'),
    'supervision': ('supervision_sets.py', 'python3.11', 'supervision==0.31.2'),
    'sleap-io': ('sleap_sets.py', 'python3.11', 'sleap-io==0.9.5'),
    'globox': ('globox_sets.py', 'python3.11', 'globox==2.9.0'),
    'labelimg': ('labelimg_sets.py', 'python3.11', 'labelImg==1.8.6'),
    'isat': ('isat_sets.py', 'python3.11', 'isat-sam==1.5.2'),
    'x-anylabeling': ('anylabeling_sets.py', 'python3.11', 'x-anylabeling-cvhub==4.2.1'),
    'labelformat': ('labelformat_sets.py', 'python3.11', 'labelformat==0.1.17'),
    'pylabel': ('pylabel_sets.py', 'python3.11', 'pylabel==0.1.55', 'pandas==2.2.3'),
    'supervisely': ('supervisely_sets.py', 'python3.11', 'supervisely==6.74.51', 'lxml==6.1.3'),
}


def make(tool: str, environments: Path) -> Path:
    """Writes the sets of a tool anew; returns their folder."""
    script, python, first, *more = TOOLS[tool]
    name, version = first.split('==')
    environment = environments / tool
    if not (environment / 'bin/python').exists():
        subprocess.run([python, '-m', 'venv', str(environment)], check=True)
        subprocess.run([environment / 'bin/pip', 'install', '--quiet', first, *more], check=True)
    work = Path(tempfile.gettempdir()) / 'exporters' / tool  # tools that write absolute paths write this one
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    variables = {**os.environ, 'PYTHONPATH': str(HERE), 'QT_QPA_PLATFORM': 'offscreen', 'PYTHONDONTWRITEBYTECODE': '1'}
    python = environment / 'bin/python'
    subprocess.run([python, str(HERE / script), 'sets'], cwd=work, env=variables, check=True)
    folder = OUT / f'{name}-{version}'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work / 'sets', folder)
    return folder


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('tools', nargs='*', default=list(TOOLS), metavar='TOOL', help=', '.join(TOOLS))
    parser.add_argument(
        '--environments', type=Path, default=Path('work_dirs/exporters'), help='folder of the environments'
    )
    arguments = parser.parse_args()
    for tool in arguments.tools:
        version = make(tool, arguments.environments.absolute())
        size = sum(path.stat().st_size for path in version.rglob('*') if path.is_file())
        print(f'{version}: {len(list(version.iterdir()))} sets, {size / 1000:.0f} kB')
