import io

from rich.console import Console

from icconv_mm.app.commands.tables import markdown, table
from icconv_tools.demo.html_report import WEB, _table, write_page
from icconv_tools.demo.report import Result, rows_of_both


def _result(network, value, metric='AP', threshold=0.6, seconds=10.0):
    return Result('a task', 'c.py', 'b.py', metric, value, threshold, seconds, network=network)


def test_one_network_against_four():
    """Results belong together by their metric; without all of both there is nothing to compare."""
    joint = [_result('all', 0.7, 'box AP50', 0.6, 90), _result('all', 0.5, 'mIoU', 0.6, None)]
    alone = [
        _result('detection', 0.75, 'box AP50'),
        _result('detection_sepc', 0.9, 'box AP50'),
        _result('semantic', 0.4, 'mIoU'),
        _result('instance', 0.4, 'mask AP50'),
    ]
    assert rows_of_both(joint + alone) is None
    _, *rows, seconds = rows_of_both([*joint, *alone, _result('pose', 0.4, 'OKS AP50')])
    assert [row[1:5] for row in rows] == [
        ('box AP50', '0.700', '0.750', '-0.050'),
        ('mIoU', '0.500', '0.400', '+0.100'),
    ]
    assert seconds[2:5] == ('90', '40', '+50')


def test_names_that_are_html_stay_text():
    assert '<td>&lt;script&gt;a&lt;/script&gt;</td>' in _table([('class',), ('<script>a</script>',)])


def test_names_in_tables_of_markdown_and_of_the_terminal():
    rows = [('class', 'AP'), ('<b>a|b\n# c</b> [/x]', '0.5')]
    assert markdown(rows).splitlines()[2] == r'| &lt;b>a\|b\n# c&lt;/b> [/x] | 0.5 |'
    console = Console(width=80, file=io.StringIO())
    console.print(table('classes', rows, {'class'}))
    assert '<b>a|b' in console.file.getvalue() and '[/x]' in console.file.getvalue()


def test_the_report_links_to_the_page_of_the_network(tmp_path):
    image = tmp_path / 'demo.jpg'
    image.write_bytes(b'')
    write_page([_result('all', 0.7)], [], tmp_path, image)
    assert 'index.html' not in (tmp_path / 'report.html').read_text()
    (tmp_path / WEB).parent.mkdir(parents=True)
    (tmp_path / WEB).write_text('')
    write_page([_result('all', 0.7)], [], tmp_path, image)
    assert '<a href="all/web/index.html">' in (tmp_path / 'report.html').read_text()
