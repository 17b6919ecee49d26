"""A config in pure Python, whose types are classes and whose ``default_scope`` is None, in every tool."""

import json
from pathlib import Path

import labelled
import pytest
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TASK_UTILS,
    TRANSFORMS,
    DefaultScope,
)

from icconv_mm.apis import config_for

pytestmark = pytest.mark.slow
REGISTRIES = (
    *(MODELS, DATASETS, TRANSFORMS, METRICS, HOOKS, DATA_SAMPLERS),
    *(OPTIM_WRAPPERS, OPTIMIZERS, PARAM_SCHEDULERS, TASK_UTILS),
)


def class_of(kind: str) -> type | None:
    """The class that a config's library builds for a name."""
    for registry in REGISTRIES:
        with registry.switch_scope_and_registry(DefaultScope.get_current_instance().scope_name) as here:
            if (cls := here.get(kind)) is not None:
                return cls
    return None


def written(value, imports: set) -> str:
    """The source of a value; registered types are imported classes."""
    if isinstance(value, dict):
        items = {key: written(item, imports) for key, item in value.items()}
        if isinstance(kind := value.get('type'), str):
            cls = class_of(kind)
            if cls is not None:
                imports.add(f'from {cls.__module__} import {cls.__name__}')
                items['type'] = cls.__name__
        return '{' + ', '.join(f'{key!r}: {item}' for key, item in items.items()) + '}'
    if isinstance(value, (list, tuple)):
        items = ''.join(f'{written(item, imports)}, ' for item in value)
        return f'[{items}]' if isinstance(value, list) else f'({items})'
    return repr(value)


@pytest.mark.parametrize('task', ['detection', 'semantic'])
def test_every_tool(workspace, tmp_path, task):
    data = {'detection': labelled.voc, 'semantic': labelled.seg_maps}[task](tmp_path / 'data')
    options = dict(ignore_index=[11]) if task == 'semantic' else {}
    cfg = config_for(data, task, 'small', size=64, epochs=1, work_dir=tmp_path / 'run', say=print, **options)
    imports = set()
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        entries = {key: written(value, imports) for key, value in cfg.to_dict().items() if key != 'default_scope'}
    lines = [f'{key} = {entry}' for key, entry in entries.items()]
    (tmp_path / 'base.py').write_text('\n'.join([*sorted(imports), '', *lines, '']))
    (tmp_path / 'pure.py').write_text(
        'from mmengine.config import read_base\n\nwith read_base():\n    from .base import *\n\n'
        'from icconv_mm.backbones import ICResNet\n\ndefault_scope = None\n'
        "model['backbone'].update(type=ICResNet, pattern='geometric_d2')\n"
    )
    assert workspace.tool('train', tmp_path / 'pure.py', '--work-dir', tmp_path / 'pure') is None
    checkpoint = Path((tmp_path / 'pure/last_checkpoint').read_text())
    checkpoint = checkpoint if checkpoint.is_absolute() else tmp_path / 'pure' / checkpoint
    image = next(path for path in sorted(data.rglob('*.png')) if 'annot' not in str(path) and 'mask' not in str(path))
    assert workspace.tool('test', tmp_path / 'pure.py', checkpoint) is None
    assert workspace.tool('infer', tmp_path / 'pure.py', checkpoint, image, '--out-dir', tmp_path / 'found') is None
    assert json.loads((tmp_path / 'found/images.json').read_text())['images']
    assert workspace.tool('export', tmp_path / 'pure.py', checkpoint, '--out', tmp_path / 'net.onnx') is None
    assert (
        workspace.tool('train', tmp_path / 'pure.py', '--work-dir', tmp_path / 'pure', '--resume', '--epochs', 2)
        is None
    )
    assert workspace.tool('browse_dataset', tmp_path / 'pure.py', '--not-show', '--count', 1) is None
