"""The table of mim's commands is that of ``tests/support/mim_routes.py``, which the integration tests try."""

from mim_routes import table


def test_the_table_of_mim_is_the_tested_one(repo):
    assert table() in (repo / 'docs/install.md').read_text(), table()
