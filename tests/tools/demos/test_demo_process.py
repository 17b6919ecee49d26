from io import StringIO

from demos.process import python, run_tool
from rich.console import Console


def test_progress_lines_and_bar(tmp_path):
    script = tmp_path / 'tool.py'
    script.write_text(
        "import time\nfor i in range(1, 4):\n    print(f'Iter(train) [ {i}/3]  loss: {1 / i:.4f}  loss_a: 9')\n"
        "print('Epoch(val) [1][20/40]    eta: 0:00:01')\nprint('free text')"
    )
    for terminal in (False, True):
        out = StringIO()
        console = Console(file=out, force_terminal=terminal, width=120)
        run_tool(python(script), tmp_path / 'log', 'the title', console, {})
        assert 'the title' in out.getvalue()
        assert ('50%' in out.getvalue()) == terminal
        assert (tmp_path / 'log').read_text().endswith('free text\n')


def test_lines_come_every_ten_seconds(tmp_path, monkeypatch):
    times = iter(range(0, 1000, 4))
    monkeypatch.setattr('demos.process.time.monotonic', lambda: next(times))
    script = tmp_path / 'tool.py'
    script.write_text("for i in range(1, 8):\n    print(f'Iter(train) [{i}/7]  loss: {i}.25')")
    out = StringIO()
    run_tool(python(script), tmp_path / 'log', 'x', Console(file=out, width=80), {})
    assert out.getvalue().splitlines() == [
        'x: starting',
        'x: 3/7  loss 3.250',
        'x: 6/7  loss 6.250',
        'x: done in 32 s',
    ]


def test_environment_reaches_the_tool(tmp_path):
    script = tmp_path / 'tool.py'
    script.write_text("import os\nprint(repr(os.environ['CUDA_VISIBLE_DEVICES']))")
    run_tool(python(script), tmp_path / 'log', 'x', Console(file=StringIO()), {'CUDA_VISIBLE_DEVICES': ''})
    assert (tmp_path / 'log').read_text() == "''\n"
