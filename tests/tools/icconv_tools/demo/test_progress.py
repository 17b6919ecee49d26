import os
import time
from io import StringIO

import pytest
from rich.console import Console

from icconv_tools.demo.progress import Tool, ToolError, run_tools
from icconv_tools.processes import python


def test_progress_lines_and_bar(tmp_path):
    script = tmp_path / 'tool.py'
    script.write_text(
        "import time\nfor i in range(1, 4):\n    print(f'Iter(train) [ {i}/3]  loss: {1 / i:.4f}  loss_a: 9')\n"
        "print('Epoch(val) [1][20/40]    eta: 0:00:01')\nprint('free text')"
    )
    for terminal in (False, True):
        out = StringIO()
        console = Console(file=out, force_terminal=terminal, width=120)
        run_tools([Tool(python(script), tmp_path / 'log', 'the title')], console, {})
        assert 'the title' in out.getvalue()
        assert ('50%' in out.getvalue()) == terminal
        assert (tmp_path / 'log').read_text().endswith('free text\n')


def test_tools_at_once_share_the_cores(tmp_path, monkeypatch):
    """Both run at the same time: each waits for what the other writes."""
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    script = tmp_path / 'tool.py'
    script.write_text(
        'import os, sys, time\nfrom pathlib import Path\nmine, other = map(Path, sys.argv[1:])\n'
        "mine.write_text('')\nwhile not other.exists():\n    time.sleep(0.01)\n"
        "print(mine.name, os.environ['OMP_NUM_THREADS'])"
    )
    names = ('one', 'two')
    tools = [
        Tool(python(script, tmp_path / mine, tmp_path / other), tmp_path / f'{mine}.log', mine)
        for mine, other in (names, names[::-1])
    ]
    out = StringIO()
    run_tools(tools, Console(file=out), {})
    threads = max(1, os.cpu_count() // 2)
    assert [(tmp_path / f'{name}.log').read_text() for name in names] == [f'{name} {threads}\n' for name in names]
    assert out.getvalue().count('done in') == 2


def test_a_failure_ends_the_others(tmp_path):
    fails, sleeps = tmp_path / 'fails.py', tmp_path / 'sleeps.py'
    fails.write_text("raise SystemExit('no such weights')")
    sleeps.write_text('import time\ntime.sleep(60)')
    tools = [Tool(python(script), tmp_path / f'{script.stem}.log', script.stem) for script in (sleeps, fails)]
    began = time.monotonic()
    with pytest.raises(ToolError, match=r'fails failed with exit status 1; the end of .*:\s+no such weights'):
        run_tools(tools, Console(file=StringIO()), {})
    assert time.monotonic() - began < 30
