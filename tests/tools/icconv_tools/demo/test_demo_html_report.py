import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from icconv_tools.demo.html_report import write_page
from icconv_tools.demo.report import Result
from icconv_tools.demo.tasks import MULTITASK, SEPARATE


class _Outline(HTMLParser):
    """Which elements are open at the end, and what is loaded from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loaded, self.count = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.loaded += [v for k, v in attrs if k in ('src', 'href', 'xlink:href') and not v.startswith(('data:', '#'))]
        if tag not in ('meta', 'img', 'br', 'link'):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def image(tmp_path):
    cv2.imwrite(str(tmp_path / 'demo.jpg'), np.zeros((8, 8, 3), np.uint8))
    return tmp_path / 'demo.jpg'


def _log(folder, records, test=None):
    (folder / 'train/now/vis_data').mkdir(parents=True)
    lines = ''.join(json.dumps(each) + '\n' for each in records)
    (folder / 'train/now/vis_data/scalars.json').write_text(lines)
    (folder / 'config.py').write_text("model = dict(type='<It>')\n")
    if test:
        (folder / 'test/now').mkdir(parents=True)
        (folder / 'test/now/now.json').write_text(json.dumps(test))


def _page(tmp_path, image, network=MULTITASK, value=0.7):
    results = [Result('a <task>', 'c.py', 'b.py', 'AP', value, 0.6, 10, network=network.name)]
    write_page(results, [network], tmp_path, image)
    return (tmp_path / 'report.html').read_text()


def test_page_stands_alone(tmp_path, image):
    """Well-formed, nothing is loaded, and what it quotes is text."""
    records = [{'lr': 0.1, 'loss': 4 / step, 'pose.loss_kpt': 1.0, 'time': 3.0, 'step': step} for step in (10, 20)]
    _log(tmp_path / 'joint', records, {'pose/coco/AP .5': 0.43})
    text = _page(tmp_path, image)
    page = _Outline(text)
    assert page.open == [] and page.loaded == [] and (page.count['img'], page.count['svg']) == (1, 2)
    assert 'a &lt;task&gt;' in text and "type='&lt;It&gt;'" in text.replace('&#x27;', "'")
    titles = re.findall(r'>([^<>]+)</text>', text)
    assert {'lr', 'loss', 'pose.loss_kpt', 'pose/coco/AP .5'} <= set(titles) and 'time' not in titles


@pytest.mark.parametrize(('value', 'verdict'), [(0.6, 'Every threshold is reached'), (0.59, 'Below the threshold: a')])
def test_verdict(tmp_path, image, value, verdict):
    assert verdict in _page(tmp_path, image, value=value)


def test_curves(tmp_path, image, monkeypatch):
    """A metric has a point for each validation and one for the test, and its threshold in the evaluator's units."""
    plotted = {}
    monkeypatch.setattr(
        'icconv_tools.demo.html_report._plots',
        lambda curves, lines, label: plotted.update({label: (curves, lines)}) or '',
    )
    semantic = SEPARATE[2]
    records = [
        {'lr': 0.1, 'loss': 2.0, 'step': 10},
        {'mIoU': 20.0, 'step': 10},
        {'lr': 0.1, 'loss': 1.0, 'step': 20},
        {'mIoU': 30.0, 'step': 20},
    ]
    _log(tmp_path / 'semantic', records, {'mIoU': 31.0, 'aAcc': 80.0})
    _page(tmp_path, image, semantic)
    (losses, _), (metrics, lines) = plotted.values()
    assert losses['loss'] == {10: 2.0, 20: 1.0}
    assert metrics == {'mIoU': {10: 20.0, 20: 31.0}, 'aAcc': {20: 80.0}} and lines == {'mIoU': 60.0}


def test_without_logs_there_are_no_curves(tmp_path, image):
    assert '<svg' not in _page(tmp_path, image)
