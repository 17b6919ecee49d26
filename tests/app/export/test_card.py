"""Model cards: what they say, and which files they replace."""

import importlib.util

import pytest
from described import RULE, described
from skips import EXPORTS

pytest.importorskip('yaml')
pytest.importorskip('onnx')
if not EXPORTS:
    pytest.skip('this torch is too old for exports', allow_module_level=True)

import yaml

from icconv_mm.app.export.card import write_card

REPORT = {'bytes': 123, 'layers': 12, 'convolutions': 152, 'check': {'images': 9, 'scores': 1.49e-6, 'boxes': 2.7e-5}}
BOXES = {'name': '', 'kind': 'detection', 'classes': ['ball', 'a|b\n<!-- `x`'], 'outputs': ['boxes']}
KNOWN = {'pattern_sha256': None, 'checkpoint_sha256': 'f' * 64, 'versions': {'icconv_mm': '0.1', 'mmdet': ''}}


def write(path, to='onnx', tasks=(BOXES,), **changes):
    path.parent.mkdir(exist_ok=True)
    about = described(tasks=list(tasks), steps=[{'op': 'resize', 'scale': [60, 40], 'keep_ratio': True}], **KNOWN)
    return write_card(path, to, about, {**REPORT, **changes}, 'config net.py')


def front_matter(text):
    _, head, _ = text.split('---\n', 2)
    return yaml.safe_load(head)


def test_what_a_card_says(tmp_path):
    text = write(tmp_path / 'net.onnx').read_text()
    known = {'library_name': 'icconv_mm', 'tags': ['icconv_mm', 'onnx'], 'pipeline_tag': 'object-detection'}
    assert front_matter(text) == known
    for line in (
        '# net.onnx',
        'A network that icconv_mm exported: config net.py.',
        r'|  | detection | ball; a\|b\\n\<!-- \`x\` |',
        '| bytes of the file | 123 |',
        '| convolutions of the file | 152 |',
        '| scores | 1.5e-06 |',
        '| boxes | 2.7e-05 pixels |',
        '| icconv_mm | 0.1 |',
        'python -m icconv_mm_runtime net.onnx images/ --out-dir predictions',
    ):
        assert line in text.splitlines(), line
    assert '9 images' in text and 'resize (scale [60, 40], keep_ratio True)' in text
    for unknown in ('license', 'Metrics', 'mmdet', 'patterns', 'None'):
        assert unknown not in text
    if importlib.util.find_spec('huggingface_hub'):
        from huggingface_hub import ModelCard

        assert ModelCard(text).data.to_dict() == known


def test_what_some_cards_say(tmp_path):
    """Metrics if they were measured, no task if there are several, the first hundred classes, fixed sizes."""
    many = {**BOXES, 'classes': [f'c{number}' for number in range(300)]}
    metrics = {'bbox_mAP': {'model': 0.51234, 'file': 0.5}}
    text = write(tmp_path / 'net.xml', 'openvino', [many], metrics=metrics).read_text()
    assert 'c99 and 200 more |' in text and r'| bbox\_mAP | 0.5123 | 0.5 |' in text
    tasks = [
        {**BOXES, 'name': 'a'},
        {**BOXES, 'name': 'b', 'kind': 'pose', 'classes': ['ant'], 'keypoints': ['head', 'a_b']},
    ]
    about = described(tasks=tasks, batch={**RULE, 'fixed': [48, 64]}, **KNOWN)
    report = {**REPORT, 'metrics': 'not measured: no dataset'}
    path = write_card(tmp_path / 'b.onnx', 'onnx', about, report, 'config b.py')
    text = path.read_text()
    assert path.name == 'b.md' and 'pipeline_tag' not in front_matter(text) and 'Metrics' not in text
    assert 'of 48x64 pixels' in text and r'| b | pose | ant (keypoints: head; a\_b) |' in text


@pytest.mark.parametrize(
    ('to', 'changes', 'line'),
    [
        ('onnx', {}, 'Images of uint8, 0 to 255, in the order BGR, of any size; normalisation is in the file.'),
        ('program', {}, 'Images of float32, 0 to 255, in the order BGR, of any size; normalisation is in the file.'),
        ('onnx', {'float32_layers': 3}, 'Layers compute in float16, 3 of them and the decoding in float32.'),
        ('onnx', {'metrics': {}}, 'Layers compute in 8 bits, the last ones and the decoding in float32.'),
        (
            'onnx',
            {'check': {'images': 9, 'missing': 120.0}},
            '| missing | 120 boxes or people that only one of the two has |',
        ),
    ],
)
def test_how_a_file_computes(tmp_path, to, changes, line):
    lines = write(tmp_path / 'net.onnx', to, **changes).read_text().splitlines()
    assert line in lines and ('compute in' in line) == any('compute in' in each for each in lines)


def test_class_names_are_no_markup(tmp_path):
    """As a parser of the dialect of GitHub and Hugging Face reads them."""
    markdown = pytest.importorskip('markdown_it')
    names = [
        'a|b',
        'tench, Tinca tinca',
        '`x`',
        '<b>',
        '[x](y)',
        '~~s~~',
        '&lt;',
        '*a*',
        '__a__',
        '# head',
        '\\|',
        '![i](j)',
        '$x$',
    ]
    text = write(tmp_path / 'net.onnx', tasks=[{**BOXES, 'classes': names}]).read_text()
    tokens = markdown.MarkdownIt('gfm-like', {'linkify': False}).parse(text)
    (cell,) = (token for token in tokens if token.type == 'inline' and token.content.startswith('a|b'))
    assert '; '.join(names) == ''.join(child.content for child in cell.children)
    assert {child.type for child in cell.children} <= {'text', 'text_special'}
    assert r'\$x\$' in text  # mathematics, which is no part of that dialect's parser


def test_a_card_replaces_nothing_of_others(tmp_path):
    readme, beside = tmp_path / 'README.md', tmp_path / 'net.md'
    assert write(tmp_path / 'net.onnx') == readme
    assert write(tmp_path / 'net.onnx', bytes=77) == readme and '| 77 |' in readme.read_text()
    assert write(tmp_path / 'other.onnx') == tmp_path / 'other.md'  # the card of another file stays
    edited = readme.read_text().replace('# net.onnx', '# The best network')
    readme.write_text(edited)
    assert write(tmp_path / 'net.onnx') == beside and readme.read_text() == edited
    beside.write_bytes(b'mine \xff')
    assert write(tmp_path / 'net.onnx') is None
    assert (readme.read_text(), beside.read_bytes()) == (edited, b'mine \xff')
    for path in (readme, beside):
        path.unlink()
        path.mkdir()
    assert write(tmp_path / 'net.onnx') is None
