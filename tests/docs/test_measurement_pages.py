"""Differences that pages quote with their interval are those of the raw files of docs/measurements."""

import json
import re

from pages import REPO, pages

FOLDER = REPO / 'docs/measurements'
DIFFERENCE = re.compile(r'[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]')


def measured() -> set[str]:
    """The differences of all raw files, as pages write them."""
    reports = [json.loads(path.read_text()) for path in FOLDER.glob('*evidence*.json')]
    rows = [row for report in reports for comparison in report['comparisons'] for row in comparison['rows']]
    differences = [
        difference for row in rows for difference in row['differences'].values() if difference['low'] is not None
    ]
    return {
        f'{difference["mean"]:+.1f} [{difference["low"]:+.1f}, {difference["high"]:+.1f}]' for difference in differences
    }


def test_differences_are_those_of_the_raw_files():
    quoted = {
        difference: page.name
        for page in pages()
        if page.parent != FOLDER and page.name != 'CHANGELOG.md'
        for difference in DIFFERENCE.findall(page.read_text().replace('**', ''))
    }
    intervals = measured()
    assert len(quoted) > 70 and {interval: page for interval, page in quoted.items() if interval not in intervals} == {}
