"""Patterns, annotations, images and options from nowhere: used, or refused in one message that names them."""

import copy
import json

import cv2
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from pycocotools.coco import COCO

from icconv_mm.app.runs.config import check_options
from icconv_mm.datasets.checks import DatasetError, check_coco_file, check_measures
from icconv_mm.datasets.loading import ImageFileError, LoadImageFromFile
from icconv_mm.errors import InputError
from icconv_mm.layers import ICConv2d
from icconv_mm.ops import use_backend
from icconv_mm.patterns import load_pattern, write_patterns

NUMBERS = st.one_of(st.integers(-3, 20), st.sampled_from([2**31, 2**62, 2**63 - 2, 2**63, 10**30, -1, 0]), st.floats())
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=10,
)
KEYS = st.one_of(
    st.tuples(NUMBERS, NUMBERS).map(lambda pair: f'({pair[0]}, {pair[1]})'),
    st.sampled_from(['(0, 0)', '(0,1)', '( 1 , 2 )', '(0, 0', '0, 0', '(a, b)', '(٣, 1)', '']),
)
LAYERS = st.one_of(
    st.dictionaries(KEYS, NUMBERS, max_size=6),
    st.lists(st.lists(NUMBERS, min_size=2, max_size=4), max_size=6),
    st.tuples(st.integers(1, 6), st.integers(0, 3)).map(lambda pair: {'(0, 0)': pair[0], f'({pair[1]}, 1)': 2}),
    VALUES,
)


@given(layers=st.one_of(st.lists(LAYERS, max_size=3), VALUES))
def test_patterns(case, layers):
    path = case.holds(json.dumps(layers).encode()).rename(case.path.with_suffix('.json'))
    try:
        patterns = load_pattern(path)
    except InputError as error:
        assert str(path) in str(error)
        return
    write_patterns(patterns, path)
    assert load_pattern(path) == patterns
    for pattern in patterns:
        if pattern.out_channels <= 64:
            conv, x = ICConv2d(2, pattern.out_channels, pattern), torch.randn(1, 2, 5, 4)
            with torch.no_grad(), use_backend('reference'):
                expected = conv(x)
            torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-4)


GOOD = {
    'images': [
        {'id': 1, 'file_name': 'a.jpg', 'width': 8, 'height': 8},
        {'id': 2, 'file_name': 'b.jpg', 'width': 8, 'height': 8},
    ],
    'annotations': [
        {
            'id': 1,
            'image_id': 1,
            'category_id': 2,
            'bbox': [0, 0, 4, 4],
            'area': 16,
            'iscrowd': 0,
            'keypoints': [1, 2, 2],
        },
        {'id': 2, 'image_id': 2, 'category_id': 2, 'bbox': [0, 0, 4, 4], 'area': 16, 'iscrowd': 0},
    ],
    'categories': [{'id': 2, 'name': 'ball'}, {'id': 5, 'name': 'cat'}],
}


@given(data=st.data())
def test_annotations(case, data):
    content = copy.deepcopy(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        node = content
        while isinstance(node, (dict, list)) and node:
            keys = sorted(node) if isinstance(node, dict) else range(len(node))
            key = data.draw(st.sampled_from(list(keys)))
            if not isinstance(node[key], (dict, list)) or data.draw(st.booleans()):
                break
            node = node[key]
        if isinstance(node, (dict, list)) and node:
            if data.draw(st.booleans()):
                node[key] = data.draw(VALUES)
            else:
                del node[key]
    path = case.holds(json.dumps(content).encode())
    try:
        annotations = check_coco_file(path)
    except DatasetError as error:
        assert str(path) in str(error) and len(str(error)) < 1000
        return
    coco = COCO(str(path))
    assert len(coco.imgs) == len(annotations['images']) and len(coco.anns) == len(annotations['annotations'])
    try:
        check_measures(annotations, path)
    except DatasetError as error:
        assert str(path) in str(error)


NOISE = np.random.default_rng(0).integers(0, 255, (9, 13, 3), dtype=np.uint8)


@given(suffix=st.sampled_from(['.jpg', '.png', '.bmp', '.webp', '.tif']), data=st.data())
def test_images(case, suffix, data):
    content = bytearray(cv2.imencode(suffix, NOISE)[1].tobytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path = case.holds(bytes(content))
    try:
        results = LoadImageFromFile().transform({'img_path': str(path)})
    except ImageFileError as error:
        assert str(path) in str(error)
    else:
        assert results['img'].ndim == 3 and results['img'].dtype == np.uint8


WORDS = [
    'model',
    'backbone',
    'depth',
    'type',
    'train_cfg',
    'max_iters',
    '0',
    '-1',
    '',
    'pipeline',
    'bakcbone',
    'x y',
    '__class__',
]


@given(
    options=st.dictionaries(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map('.'.join), VALUES, max_size=3)
)
def test_options(case, options):
    case.holds(json.dumps(options).encode())
    cfg = Config(
        dict(model=dict(type='A', backbone=dict(depth=18)), train_cfg=dict(max_iters=3), pipeline=[dict(type='B')])
    )
    try:
        check_options(cfg, options)
    except InputError as error:
        assert str(error).startswith('options: ')
