"""Options that a config does not have, or that could not change anything, are told at once."""

import ast
import copy
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

from icconv_mm.app.commands import command_line
from icconv_mm.app.runs.begin import load_config
from icconv_mm.app.runs.config import READ_BY_RUNNERS, check_options
from icconv_mm.errors import InputError
from icconv_mm.registry import LIBRARIES


@pytest.fixture
def cfg():
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(
                type='FasterRCNN', backbone=dict(type='ResNet', depth=50), test_cfg=dict(rcnn=dict(max_per_img=9))
            ),
            train_cfg=dict(max_epochs=12),
            param_scheduler=[dict(type='LinearLR', begin=0)],
        )
    )


@pytest.mark.parametrize(
    'option',
    ['model.backbone.depth', 'model.backbone.frozen_stages', 'param_scheduler.0.begin', 'param_scheduler.0.by_epoch',
     'randomness.seed', 'load_from', 'resume', 'model.test_cfg.rcnn.score_thr', 'train_dataloader.batch_size'],
)  # fmt: skip
def test_options_that_may_be_given(cfg, option):
    check_options(cfg, {option: 1})


@pytest.mark.parametrize(
    ('option', 'problem'),
    [
        ('model.bakcbone.depth', "no such key .* did you mean 'backbone'"),
        ('model.backbone.dept', "no such key .* did you mean 'depth'"),
        ('trian_cfg.max_epochs', "no such key .* did you mean 'train_cfg'"),
        ('train_cfg.max_epoch', "no such key .* did you mean 'max_epochs'"),
        ('model.test_cfg.rcnn.max_per_image', "no such key .* did you mean 'max_per_img'"),
        ('randomnes.seed', "no such key .* did you mean 'randomness'"),
        ('colour.depth', ".*the config has no 'colour', and it is no argument of the runner"),
        ('param_scheduler.begin', r'param_scheduler is a list of 1: .* as in param_scheduler\.0\.begin$'),
        ('param_scheduler.1', 'param_scheduler is a list of 1: write param_scheduler.N, N counted from 0$'),
        ('param_scheduler.1.begin', 'param_scheduler is a list of 1: write param_scheduler.N, N counted from 0$'),
    ],
)
def test_options_that_are_refused(cfg, option, problem):
    with pytest.raises(InputError, match=f'^options: {option}: {problem}'):
        check_options(cfg, {option: 1})


RECIPES = [
    'detection/faster-rcnn_ic-r50-k9_fpn_1x_coco',
    'pose/ae_ic-r18_miniature',
    'multitask/multitask_ic-r18_fpn_miniature',
]


def recipe_of(repo, recipe):
    if recipe.startswith('pose'):
        pytest.importorskip('mmpose')
    return load_config(str(repo / 'configs' / f'{recipe}.py'))


def refused(cfg, option):
    try:
        check_options(cfg, {option: 1})
    except InputError as error:
        return str(error)
    return None


def runner_arguments(cfg):
    """What mmengine gives a runner that is built from a config."""
    given = {}

    class Recorder:
        def __init__(self, **arguments):
            given.update(arguments)

    Runner.from_cfg.__func__(Recorder, cfg)
    given.pop('cfg')
    return given


@pytest.mark.parametrize('recipe', RECIPES)
def test_refused_are_the_keys_that_change_nothing(repo, recipe):
    if recipe.startswith('multitask/'):
        pytest.importorskip('mmpose')
    cfg = recipe_of(repo, recipe)
    before = runner_arguments(cfg)
    for key in cfg:
        changed = copy.deepcopy(cfg)
        changed[key] = {'type': 'Other'}
        same = runner_arguments(changed) == before
        beside = key in ('tta_model', 'tta_pipeline', 'find_unused_parameters')  # read by the tools and the runner
        assert bool(refused(cfg, key)) == (same and not beside), key


def test_a_variable_of_the_config_files(repo):
    assert 'has an effect only inside the config files' in refused(recipe_of(repo, RECIPES[0]), 'backbone.depth')


@pytest.mark.parametrize(
    ('given', 'problem'),
    [
        ('a=[1,2', r'a=\[1,2: a bracket is open; quote lists: a="\[a,b\]"'),
        ('a=[1', r'a=\[1: a bracket is open'),
        ('a=(1,[2)]', 'a bracket is open'),
        ('a=1,2)', 'a bracket is open'),
        ('a', 'expected KEY=VALUE, got a'),
        ('=1', 'expected KEY=VALUE, got =1'),
    ],
)
def test_values_that_cannot_be_read(given, problem, capsys):
    parser = command_line.parser('')
    command_line.add_cfg_options(parser)
    with pytest.raises(SystemExit, match='2'):
        parser.parse_args(['--cfg-options', given])
    assert re.search(f'error: argument --cfg-options: .*{problem}', capsys.readouterr().err)


def test_values_that_can_be_read():
    parser = command_line.parser('')
    command_line.add_cfg_options(parser)
    given = ['a=[1,(2,3)]', 'b="[x]"', 'c.d=1,2', 'e=', 'f=x(y', 'g=None']
    expected = {'a': [1, (2, 3)], 'b': ['x'], 'c.d': [1, 2], 'e': '', 'f': 'x(y', 'g': None}
    assert parser.parse_args(['--cfg-options', *given]).cfg_options == expected


def test_a_key_that_code_of_the_user_may_read():
    cfg = Config(dict(model=dict(type='A'), threshold=3, custom_imports=dict(imports=['icconv_mm'])))
    assert refused(cfg, 'threshold')
    cfg.custom_imports.imports.append('my_hooks')
    assert refused(cfg, 'threshold') is None
    assert refused(Config(dict(default_scope='my_library', threshold=3)), 'threshold') is None


def test_a_runner_that_takes_other_keys():
    cfg = Config(dict(model=dict(type='A'), strategy=dict(type='SingleDeviceStrategy')))
    assert refused(cfg, 'strategy.type')
    cfg.runner_type = 'FlexibleRunner'
    assert refused(cfg, 'strategy.type') is None


@pytest.mark.parametrize(
    'option', ['compile', 'sync_bn', 'model_wrapper_cfg.type', 'efficient_conv_bn_eval', 'activation_checkpointing']
)
def test_what_the_runner_reads_of_its_config_may_be_new(cfg, option):
    assert refused(cfg, option) is None


def test_what_the_runners_of_mmengine_read_of_their_config():
    sources = inspect.getsource(Runner) + inspect.getsource(FlexibleRunner)
    read = set(re.findall(r"""self\.cfg(?:\.get\(\s*|\[)['"](\w+)['"]""", sources))
    assert read == set(READ_BY_RUNNERS)


# What upstream's configs hold that works: the arguments of the runners, and what else mmengine or the tools read.
WORKING = {
    'model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg',
    'auto_scale_lr', 'optim_wrapper', 'param_scheduler', 'val_evaluator', 'test_evaluator', 'default_hooks',
    'custom_hooks', 'data_preprocessor', 'load_from', 'resume', 'launcher', 'env_cfg', 'log_processor', 'log_level',
    'visualizer', 'default_scope', 'randomness', 'experiment_name', 'work_dir', 'find_unused_parameters', 'tta_model',
    'tta_pipeline', 'model_wrapper_cfg',
}  # fmt: skip


@pytest.mark.parametrize('library', LIBRARIES)
def test_top_level_names_of_upstream(library):
    pytest.importorskip(library)
    spec = importlib.util.find_spec(library)
    files = [path for path in Path(spec.origin).parent.glob('.mim/configs/**/*.py') if path.stat().st_size < 20_000]
    names = {target.id for path in files for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)
             for target in node.targets if isinstance(target, ast.Name)} - {'_base_'}  # fmt: skip
    assert len(names & WORKING) > 10
    cfg = Config(dict.fromkeys(sorted(names), 1) | {'model': {}, 'custom_imports': {}, 'default_scope': library})
    cfg._cfg_dict.pop('runner_type', None)  # the default runner; the others are tested above
    assert {name for name in cfg if refused(cfg, name) is None} == names & WORKING | {'model', 'default_scope'}


@pytest.mark.parametrize('library', ['mmengine', *LIBRARIES])
def test_what_libraries_read_of_the_config_of_a_run(library, cfg):
    pytest.importorskip(library)
    spec = importlib.util.find_spec(library)
    sources = [path.read_text() for path in Path(spec.origin).parent.rglob('*.py') if '.mim' not in path.parts]
    read = {key for text in sources for key in re.findall(r"""runner\.cfg(?:\.get\(\s*['"]|\[['"]|\.)(\w+)""", text)}
    for key in read - {'pretty_text', 'get'}:
        assert refused(Config({key: 1}), key) is None, key
