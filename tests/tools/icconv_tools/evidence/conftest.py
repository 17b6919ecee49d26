"""Results of runs that were not trained."""

import json

import pytest

from icconv_tools.evidence.runs import Run

COSTS = {'parameters': 250_000, 'flops': 8e7, 'milliseconds': 7.5}


@pytest.fixture
def pretended(monkeypatch):
    """Writes the result of a run with these scores; results count whatever the config."""

    def result(run: Run) -> dict | None:
        return json.loads(run.result_file.read_text()) if run.result_file.is_file() else None

    def write(run: Run, scores: dict, dilations: list | None = None) -> None:
        tests = dict.fromkeys(('', *run.arm.tests), scores)
        content = {'seed': run.seed, 'tests': tests, 'costs': COSTS, 'seconds_of_step': 0.2, 'iterations': 300}
        run.folder.mkdir(parents=True, exist_ok=True)
        run.result_file.write_text(json.dumps({**content, 'dilations': dilations}))

    monkeypatch.setattr(Run, 'result', result)
    return write
