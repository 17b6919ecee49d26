"""No config writes what its bases say already."""

import ast
from pathlib import Path

import pytest
from config_utils import CONFIGS, read_base, read_config
from mmengine.config import Config

CONFIG_FILES = sorted(CONFIGS.rglob('*.py'))


def is_dict(node) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, 'id', None) == 'dict'


def value_of(node, names: dict):
    """The value of an expression of literals, ``dict(...)`` and ``names``; ValueError where it takes anything else."""
    if is_dict(node) and not node.args:
        return {keyword.arg: value_of(keyword.value, names) for keyword in node.keywords}
    if isinstance(node, (ast.List, ast.Tuple)):
        return (list if isinstance(node, ast.List) else tuple)(value_of(item, names) for item in node.elts)
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    return ast.literal_eval(node)


def leaves_as_in(base, node, names, key):
    """Key and value of each leaf of an expression that equals what ``base`` has there: a dict is merged into it."""
    if is_dict(node) and isinstance(base, dict):
        keys = [keyword.arg for keyword in node.keywords]
        if not node.keywords and not node.args:
            yield key, {}  # an empty dict changes nothing
        if '_delete_' in keys or node.args:  # another dict in the place of the bases', or a copy that is changed
            return
        for keyword in node.keywords:
            if keyword.arg in base:
                yield from leaves_as_in(base[keyword.arg], keyword.value, names, f'{key}.{keyword.arg}')
        return
    try:
        value = value_of(node, names)
    except ValueError:
        return
    if value == base:
        yield key, value


def repetitions(path: Path):
    """What a file writes although its bases, those of libraries included, give the same."""
    given = {}
    for base in Config._get_base_files(str(path)):
        given |= read_base(base, path).to_dict()
    names = {}
    for statement in ast.parse(path.read_text()).body:
        if not isinstance(statement, ast.Assign):
            continue
        target, value = statement.targets[0], statement.value
        pairs = zip(target.elts, value.elts) if isinstance(target, ast.Tuple) else [(target, value)]
        for name, node in pairs:
            if name.id in given:
                yield from leaves_as_in(given[name.id], node, names, name.id)
            try:
                names[name.id] = value_of(node, names)
            except ValueError:
                names.pop(name.id, None)


def test_no_config_repeats_its_bases():
    found = [
        f'{path.relative_to(CONFIGS)}: {key} = {value!r}' for path in CONFIG_FILES for key, value in repetitions(path)
    ]
    assert found == []


@pytest.mark.parametrize(
    'text, found',
    [
        ('train_cfg = dict(max_iters=260, val_interval=100)', [('train_cfg.max_iters', 260)]),
        ('length = 260\ntrain_cfg = dict(max_iters=length)', [('train_cfg.max_iters', 260)]),
        ('max_iters, warm_up = 300, 27', [('warm_up', 27)]),
        ('val_cfg = dict()', [('val_cfg', {})]),
        (
            "optim_wrapper = dict(clip_grad=dict(norm_type=2), type='AmpOptimWrapper')",
            [('optim_wrapper.clip_grad.norm_type', 2)],
        ),
        ("train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=260)", []),
        ('randomness = dict(_base_.train_cfg, seed=0)', []),
        ('train_cfg = dict(max_iters=_base_.max_iters + 40)', []),
    ],
)
def test_a_repetition_is_noticed(text, found, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f'_base_ = {str(CONFIGS / "_base_/schedules/miniature.py")!r}\n{text}\n')
    assert list(repetitions(path)) == found


def test_schedules_of_the_miniature_set_are_whole():
    """Their lists are written anew for every length, because mmengine merges no lists."""
    paths = sorted(CONFIGS.glob('*/*_miniature.py'))
    assert len(paths) > 8
    for path in paths:
        cfg = read_config(path)
        warming, falling = cfg.param_scheduler
        assert cfg.train_cfg.max_iters == cfg.train_cfg.val_interval == cfg.max_iters == falling.end, path.stem
        assert warming.end == falling.begin == cfg.warm_up < falling.end, path.stem
        assert falling.T_max == falling.end - falling.begin, path.stem
