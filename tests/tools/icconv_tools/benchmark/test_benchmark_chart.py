"""The chart of bars."""

import pytest
from PIL import Image

from icconv_tools.benchmark import Figure, Timing
from icconv_tools.benchmark.chart import bars, write_chart


def figure(name, subject, baseline, suite='layers', unit='ms'):
    return Figure(suite, name, Timing(subject, subject, 1), Timing(baseline, baseline, 1), unit=unit)


FIGURES = [
    figure('layer 0 forward: ours / dense', 2.0, 1.0),
    figure('layer 0 forward: ours / composition', 2.0, 4.0),
    figure('IC-R50 1x3x8x8 eager: ours / upstream', 3.0, 2.0, 'backbone'),
    figure('IC-R50 1x3x8x8 step: ours / upstream', 5.0, 2.0, 'backbone'),
    figure('neck / literal form', 1.0, 2.0, 'fpt'),
    figure('memory: ours / dense', 1.0, 2.0, 'fpt', unit='MB'),
]


def test_bars_are_the_medians_of_all_contenders():
    assert bars(FIGURES) == {
        'layers': {'layer 0': {'ours': 2000.0, 'baseline': 1000.0, 'composition': 4000.0}},
        'backbone': {'IC-R50 1x3x8x8 eager': {'ours': 3000.0, 'baseline': 2000.0}},
        'backbone, training step': {'IC-R50 1x3x8x8': {'ours': 5000.0, 'baseline': 2000.0}},
    }


def test_one_panel_per_suite_and_pass(tmp_path):
    for number, figures in enumerate((FIGURES[:2], FIGURES)):
        write_chart(figures, tmp_path / f'{number}.png')
    one, two = (Image.open(tmp_path / f'{number}.png') for number in range(2))
    assert two.height == 3 * one.height and len(one.convert('RGB').getcolors(1 << 20)) > 3


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='no figure to draw: suites layers, backbone and models'):
        write_chart(FIGURES[4:], tmp_path / 'none.png')
