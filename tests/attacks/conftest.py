"""How long and where: a few dozen cases in every test run, as many as there is time for in ``make fuzz``."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

# `make fuzz` sets both; the folder keeps the cases that failed, and those that led further than others
CASES = int(os.environ.get('ICCONV_MM_FUZZ_CASES', 40))
FOLDER = os.environ.get('ICCONV_MM_FUZZ_FOLDER')

settings.register_profile(
    'attacks',
    max_examples=CASES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=DirectoryBasedExampleDatabase(Path(FOLDER, 'examples')) if FOLDER else None,
    derandomize=not FOLDER,  # a test run gives the same result every time; fuzzing explores
    print_blob=bool(FOLDER),
)
settings.load_profile('attacks')


class Case:
    """Puts the input under test where it outlives the process, so that a crash leaves what caused it.

    Hypothesis runs the smallest input that fails last: after a failure, this is that input.
    """

    def __init__(self, name: str, workspace: Path) -> None:
        self.count = 0
        self.path = Path(FOLDER or workspace, 'inputs', name)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def holds(self, content: bytes) -> Path:
        self.count += 1
        self.path.write_bytes(content)
        return self.path


@pytest.fixture
def case(request, tmp_path):
    new_case = Case(request.node.name, tmp_path)
    yield new_case
    if FOLDER:
        with open(Path(FOLDER, 'counts.txt'), 'a') as file:
            file.write(f'{request.node.name} {new_case.count}\n')
