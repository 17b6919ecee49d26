import io

import pytest
import torch
from PIL import Image
from rich.console import Console

from icconv_mm.patterns import DilationPattern
from icconv_mm.patterns.describe import draw_patterns, mean_dilation, pattern_table
from icconv_mm.patterns.receptive_field import ReceptiveField

PATTERNS = [DilationPattern([(6, 1, 1), (2, 3, 1)]), DilationPattern([(1, 1, 2), (3, 4, 4)])]


def test_mean_dilation():
    assert mean_dilation(PATTERNS[0]) == (1.5, 1.0)
    assert mean_dilation(PATTERNS[1]) == (3.25, 3.5)


def test_table():
    console = Console(width=100, file=io.StringIO())
    console.print(pattern_table(PATTERNS, 'two layers', ['first.conv', 'second.conv']))
    rows = [line.strip('│').split('│') for line in console.file.getvalue().splitlines() if line.startswith('│')]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ['first.conv', '8', '2', '1.50', '1.00', '3', '75%'],
        ['second.conv', '4', '2', '3.25', '3.50', '4', '0%'],
    ]


@pytest.mark.parametrize('fields', [0, 2])
def test_picture(fields, tmp_path):
    field = ReceptiveField(torch.full((9, 9), 1 / 81), 2.5, 2.5)
    path = tmp_path / 'new/pattern.png'
    draw_patterns(PATTERNS, path, 'two layers', {f'network {i}': field for i in range(fields)})
    width, height = Image.open(path).size
    assert height == 600 and width == 120 * (7 + 4 * fields)
