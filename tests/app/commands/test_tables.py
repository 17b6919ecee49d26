"""Text of the user stays text where a terminal shows it."""

import io
from pathlib import Path

import pytest

pytest.importorskip('rich')


from icconv_mm.app.commands import tables

NAMES = [
    '[/x].conv',
    '[red]a[/red]',
    '[link=http://x]a',
    'a[/]',
    '[bold',
    'a\\',
    ':smile:',
    '%s',
    '{x}',
    '{task.total}',
]


@pytest.fixture
def console():
    """A terminal of 200 columns that shows colours."""
    return tables.console(file=io.StringIO(), force_terminal=True, width=200)


@pytest.mark.parametrize('name', NAMES)
def test_names_in_titles_heads_and_cells_are_shown_as_they_are(name, console):
    console.print(tables.table(f'layers of {name}', [('layer', name), (name, '1')], {'layer'}))
    title, _, head, _, row, _ = console.file.getvalue().splitlines()
    assert f'layers of {name}' in title and name in head and name in row


@pytest.mark.parametrize('name', NAMES)
def test_names_in_lines_and_progress_bars_are_shown_as_they_are(name, console):
    with console.status(tables.plain(f'measuring {name}')):
        console.print(f'image {name}', highlight=False)
    assert list(tables.progress_bar([3, 4], f'images of {name}', None, console)) == [3, 4]
    shown = console.file.getvalue()
    assert all(f'{what} {name}' in shown for what in ('measuring', 'image', 'images of'))


def test_control_characters_are_escaped(console):
    console.print(tables.table('\x1b]0;owned\x07', [('layer', '\x1b[31m'), ('\x1b[2J', '1')], {'layer'}))
    shown = console.file.getvalue()
    assert '\x1b]0;' not in shown and '\x1b[31m' not in shown and '\x1b[2J' not in shown
    assert r'\x1b]0;owned\x07' in shown and r'\x1b[31m' in shown and r'\x1b[2J' in shown


@pytest.mark.parametrize('key', ['[/x].conv', 'a[/]', '[red]a[/red]', '\x1b[31m'])
def test_a_search_shows_the_layers_of_a_checkpoint_as_they_are(key, tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip('torch')
    from icconv_mm.app import commands

    monkeypatch.chdir(tmp_path)
    state = {f'{key}.{i}.weight': torch.randn(8, 4, 9, 9) for i in range(2)}
    torch.save({'state_dict': state}, 'supernet.pth')
    commands.main(['search', 'supernet.pth', '--d-max', '4', '--out', 'pattern.json'])
    shown = capsys.readouterr().out
    assert (
        key.partition('.')[0].replace('\x1b', r'\x1b') in shown
        and '\x1b' not in shown
        and Path('pattern.json').is_file()
    )
