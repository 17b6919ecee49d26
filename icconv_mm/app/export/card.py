"""Writes a model card, in the form of Hugging Face's, beside an exported file."""

import hashlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from icconv_mm.app.export.writers import pixels_of
from icconv_mm.errors import naming
from icconv_mm_runtime.errors import printable
from icconv_mm_runtime.files import write_bytes

_PIPELINES = {
    'detection': 'object-detection',
    'instance': 'image-segmentation',
    'semantic': 'image-segmentation',
    'pose': 'keypoint-detection',
    'classification': 'image-classification',
}
_RUNTIMES = {
    'onnx': ('ONNX Runtime', 'OpenVINO', 'other ONNX runtimes'),
    'openvino': ('OpenVINO',),
    'pt2': ('AOTInductor of torch',),
    'program': ('torch.export', 'converters for phones'),
}
_UNITS = {
    'boxes': 'pixels',
    'keypoints': 'pixels',
    'masks': 'of the pixels',
    'seg_map': 'of the pixels',
    'missing': 'boxes or people that only one of the two has',
    'ties': 'images whose maps were compared, not their people',
}
_SHOWN = 100  # classes of a task that are named
_MARK = re.compile(r'\n<!-- written by icconv_mm for (.+), sha256 ([0-9a-f]{64}): edited cards are kept -->\n\Z')


def write_card(
    file: Path, to: str, description: Mapping[str, Any], report: Mapping[str, Any], data: str
) -> Path | None:
    """Writes the card of a file beside it and returns its path; None if only other people's files could be replaced.

    The card is ``README.md``, or the file's name with ``.md`` if the folder has another ``README.md``: of a user, of
    another exported file, or a card that somebody edited.
    """
    content = '\n'.join(_lines(file, to, description, report, data)).encode()
    digest = hashlib.sha256(content).hexdigest()
    content += f'\n<!-- written by icconv_mm for {_name(file)}, sha256 {digest}: edited cards are kept -->\n'.encode()
    for path in (file.with_name('README.md'), file.with_suffix('.md')):
        with naming(str(path), OSError):
            if not path.exists() or (path.is_file() and _is_ours(path, file)):
                write_bytes(path, content)
                return path
    return None


def _is_ours(path: Path, file: Path) -> bool:
    """Returns whether a card is as it was written for this file."""
    text = path.read_bytes().decode(errors='replace')
    mark = _MARK.search(text)
    return (
        mark is not None
        and mark[1] == _name(file)
        and hashlib.sha256(text[: mark.start()].encode()).hexdigest() == mark[2]
    )


def _name(file: Path) -> str:
    return printable(file.name).replace('--', '__')  # two dashes end a comment


def _lines(file: Path, to: str, description: Mapping[str, Any], report: Mapping[str, Any], data: str) -> Iterator[str]:
    tasks, batch = description['tasks'], description['batch']
    pipelines = {_PIPELINES[task['kind']] for task in tasks}
    yield from ('---', 'library_name: icconv_mm', 'tags:', '- icconv_mm', *(['- onnx'] if to == 'onnx' else []))
    yield from (['- openvino'] if to == 'openvino' else [])
    if len(pipelines) == 1:
        yield f'pipeline_tag: {pipelines.pop()}'
    yield from ('---', '', f'# {_cell(file.name)}', '', f'A network that icconv_mm exported: {_cell(data)}.', '')
    yield from ('## Tasks', '', *_table(['task', 'kind', 'classes'], map(_task, tasks)), '')
    yield from ('## Input', '')
    size = 'of any size' if batch['fixed'] is None else 'of {}x{} pixels (height, width)'.format(*batch['fixed'])
    count = 'one in a batch, ' if batch.get('count') else ''
    pixels = str(pixels_of(to)).removeprefix('torch.')
    yield f'Images of {pixels}, 0 to 255, in the order BGR, {count}{size}; normalisation is in the file.'
    yield f'Steps before: {_steps(description)}.'
    yield from ('', '## Runtimes', '', f'{description.get("needs") or ", ".join(_RUNTIMES[to])}.')
    if 'float32_layers' in report:
        yield f'Layers compute in float16, {report["float32_layers"]} of them and the decoding in float32.'
    if 'metrics' in report:
        yield 'Layers compute in 8 bits, the last ones and the decoding in float32.'
    if to in ('onnx', 'openvino'):
        command = f'python -m icconv_mm_runtime {shlex.quote(printable(file.name))} images/ --out-dir predictions'
        yield from ('Preprocessing and decoding are in `icconv_mm_runtime`:', '', '```bash', command, '```')
    yield from ('', '## Sizes', '', *_table(['', ''], _sizes(report)), '')
    yield from _checks(report)
    yield from ('## Origin', '', *_table(['', ''], _origin(description)), '')


def _cell(text: Any) -> str:
    """Returns a text as the content of a cell: in one line, without markup."""
    return re.sub(r'([\\`*_{}\[\]<>|#~&$])', r'\\\1', printable(text))


def _table(header: Sequence[str], rows: Any) -> list[str]:
    lines = [header, ['---'] * len(header), *rows]
    return [f'| {" | ".join(map(str, line))} |' for line in lines]


def _task(task: Mapping[str, Any]) -> tuple[str, str, str]:
    classes = task['classes']
    more = f' and {len(classes) - _SHOWN} more' if len(classes) > _SHOWN else ''
    if keypoints := task.get('keypoints'):
        more += f' (keypoints: {"; ".join(map(_cell, keypoints))})'
    return _cell(task['name']), task['kind'], '; '.join(map(_cell, classes[:_SHOWN])) + more


def _steps(description: Mapping[str, Any]) -> str:
    steps = []
    for step in description['steps']:
        options = ', '.join(f'{name} {value}' for name, value in step.items() if name != 'op')
        steps.append(f'{step["op"]} ({options})')
    return '; '.join(steps) or 'none'


def _sizes(report: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield 'bytes of the file', report['bytes']
    if report['layers']:
        yield 'inception convolutions of the model', report['layers']
    if 'convolutions' in report:
        yield 'convolutions of the file', report['convolutions']


def _checks(report: Mapping[str, Any]) -> Iterator[str]:
    """Yields how far the file's results are from the model's, and the metrics of both if they were measured."""
    found = dict(report['check'])
    images = found.pop('images')
    yield from ('## Check', '', f'The largest differences between the file and the model, on {images} images:', '')
    named = ((name, f'{_figure(value)} {_UNITS.get(name, "")}'.strip()) for name, value in found.items())
    yield from (*_table(['results', 'difference'], named), '')
    metrics = report.get('metrics')
    if isinstance(metrics, Mapping):
        rows = ((_cell(name), *(f'{each[which]:.4g}' for which in ('model', 'file'))) for name, each in metrics.items())
        yield from ('## Metrics', '', "On the config's test dataset:", '')
        yield from (*_table(['metric', 'model', 'file'], rows), '')


def _figure(value: float) -> str:
    return f'{value:.0f}' if float(value).is_integer() else f'{value:.2g}'


def _origin(description: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield 'SHA-256 of the checkpoint', description['checkpoint_sha256']
    if description['pattern_sha256']:
        yield 'SHA-256 of the dilation patterns', description['pattern_sha256']
    yield from ((name, version) for name, version in description['versions'].items() if version)
