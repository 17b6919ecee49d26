"""Rename rules of the user."""

import json

import pytest
import torch
from layouts import detector, resnet, with_prefix

from icconv_mm.checkpoints import RenameRule, convert, load_rules
from icconv_mm.checkpoints.convert import run_conversion
from icconv_mm.files import MAX_BYTES

SMALL = {'width': 8, 'channels': 8, 'hidden': 12, 'classes': 5}
RULES = [
    {'pattern': r'fpn\.p(\d)_lateral\.(.*)', 'replace': r'neck.lateral_convs.\1.conv.\2'},
    {'pattern': r'fpn\.statistics\..*', 'replace': None},
]


def foreign():
    state = with_prefix('net.backbone.', resnet(18, 8))
    state |= {f'net.fpn.p{level}_lateral.weight': torch.full((2, 2), float(level)) for level in range(4)}
    return state | {'net.fpn.statistics.mean': torch.zeros(3)}


def test_rules_find_a_place_for_foreign_keys():
    rules = [RenameRule(**rule) for rule in RULES] + [RenameRule(r'neck\..*', 'never.reached')]
    conversion = run_conversion(foreign(), 'ic-conv', rules=rules, allow_unmatched=True)
    assert set(conversion.left) == {f'neck.lateral_convs.{level}.conv.weight' for level in range(4)}
    assert [move.old for move in conversion.moves if move.new is None] == [('net.fpn.statistics.mean',)]


def test_rules_onto_version_1_names_get_its_class_order_and_onto_version_2_names_keep_it():
    state = detector(1, **SMALL)
    foreign_state = {
        key.replace('bbox_head.', 'box.').replace('rpn_head.', 'proposals.'): value for key, value in state.items()
    }
    proposals = RenameRule(r'proposals\.(.*)', r'rpn_head.\1')
    first = convert(foreign_state, 'ic-conv', rules=[proposals, RenameRule(r'box\.(.*)', r'bbox_head.\1')])
    assert torch.equal(first['roi_head.bbox_head.fc_cls.bias'][:-1], state['bbox_head.fc_cls.bias'][1:])
    last = convert(foreign_state, 'ic-conv', rules=[proposals, RenameRule(r'box\.(.*)', r'roi_head.bbox_head.\1')])
    assert torch.equal(last['roi_head.bbox_head.fc_cls.bias'], state['bbox_head.fc_cls.bias'])


def test_moves_tell_the_name_in_the_file():
    state = detector(2, **SMALL)
    state['rpn.conv.weight'] = state.pop('rpn_head.rpn_conv.weight')
    conversion = run_conversion(state, 'ic-conv', rules=[RenameRule(r'rpn\.conv\.(\w+)', r'rpn_head.rpn_conv.\1')])
    (move,) = [move for move in conversion.moves if move.new == 'rpn_head.rpn_conv.weight']
    assert (move.old, move.how) == (('rpn.conv.weight',), 'renamed')


def test_rules_do_not_touch_the_backbone():
    converted = convert(with_prefix('backbone.', resnet(18, 8)), 'ic-conv', rules=[RenameRule('.*', None)])
    assert 'backbone.layer4.1.conv2.weight' in converted


def test_two_keys_of_one_name_are_refused():
    message = r'fpn\.p1_lateral\.weight and fpn\.p0_lateral\.weight would both be renamed to neck'
    with pytest.raises(ValueError, match=message):
        convert(foreign(), 'ic-conv', rules=[RenameRule(r'fpn\.p\d_lateral\..*', 'neck')])
    state = detector(2, **SMALL) | {'extra.weight': torch.zeros(1)}
    with pytest.raises(ValueError, match=r'extra\.weight and .* would both be renamed to rpn_head\.rpn_cls\.weight'):
        convert(state, 'ic-conv', rules=[RenameRule(r'extra\.weight', 'rpn_head.rpn_cls.weight')])


@pytest.mark.parametrize('suffix', ['.json', '.yml', '.yaml'])
def test_rules_are_read_from_json_and_yaml(tmp_path, suffix):
    path = tmp_path / f'rules{suffix}'
    text = "- pattern: 'fpn\\.p(\\d)_lateral\\.(.*)'\n  replace: 'neck.lateral_convs.\\1.conv.\\2'\n"
    text += "- {pattern: 'fpn\\.statistics\\..*', replace: null}\n"
    path.write_text(json.dumps(RULES) if suffix == '.json' else text)
    assert load_rules(path) == [RenameRule(**rule) for rule in RULES]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"pattern": "a", "replace": "b"}', 'expected a list of .*, found dict'),
        ('[{"pattern": "a"}]', r"rule 0: expected the fields pattern and replace, found \{'pattern': 'a'\}"),
        ('[{"pattern": "a", "replace": "b"}, {"pattern": "(", "replace": ""}]', r"rule 1: rename rule '\(' -> ''"),
        ('[{"pattern": "a", "replace": "\\\\2"}]', r'rule 0: rename rule .*invalid group reference 2'),
        ('[{"pattern": "a", "replace": 3}]', 'rule 0: pattern must be text, replace text or null'),
        ('[{"pattern": ', 'not a JSON file'),
        ('[{"pattern": "(a+)+b", "replace": "b"}]', r"rule 0: rename rule '\(a\+\)\+b': a group must not be repeated"),
        ('[{"pattern": "\\ud800", "replace": "b"}]', 'rule 0: rename rule .*surrogates not allowed'),
        (f'[{{"pattern": "a{{{"9" * 5000}}}", "replace": "b"}}]', 'rule 0: rename rule .*'),
        (f'[{"9" * 5000}]', 'not a JSON file: Exceeds|rule 0: expected the fields'),
        ('[' * 100_000, 'not a JSON file'),
    ],
)
def test_malformed_rules_name_file_and_entry(tmp_path, text, message):
    path = tmp_path / 'rules.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=rf'rules\.json: ({message})'):
        load_rules(path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[' * 10_000, 'not a YAML file'),
        ('- \0', 'not a YAML file'),
        (f'- {"9" * 5000}', 'not a YAML file: Exceeds|rule 0: expected the fields'),
        ('- 2020-99-99', 'not a YAML file'),
        (
            '\n'.join(f'- &a{i} [{", ".join([f"*a{i - 1}"] * 9 if i else ["1"])}]' for i in range(30)),
            'rule 0: expected',
        ),
    ],
    ids=range(5),
)
def test_yaml_of_forms_that_crash_or_hang_others(tmp_path, text, message):
    path = tmp_path / 'rules.yml'
    path.write_text(text)
    with pytest.raises(ValueError, match=rf'rules\.yml: ({message})'):
        load_rules(path)


def test_literal_brackets_may_be_repeated():
    assert RenameRule(r'a\)+b', 'c').matches('a))b')


def test_rules_of_a_size_that_none_have(tmp_path):
    path = tmp_path / 'rules.json'
    with path.open('wb') as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match=rf'rules\.json: {MAX_BYTES + 1} bytes is too large for a file of'):
        load_rules(path)


def test_missing_rules_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.json'):
        load_rules(tmp_path / 'none.json')
