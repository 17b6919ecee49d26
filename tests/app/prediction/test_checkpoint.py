import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from icconv_mm.app.prediction.checkpoint import Predictor, _device
from icconv_mm.app.prediction.coco_results import match_images
from icconv_mm.app.prediction.network import predict_each, try_predict
from icconv_mm.app.runs.images import drawn_names
from icconv_mm.errors import ArgumentError, InputError
from icconv_mm_runtime.results import Result


def test_images_of_equal_names_get_different_ones():
    paths = [Path('x/a.jpg'), Path('x/a_2.jpg'), Path('y/a.jpg'), Path('z/a.jpg')]
    names = drawn_names(paths)
    assert names[paths[0]] == 'a.jpg' and names[paths[1]] == 'a_2.jpg'
    assert len(set(names.values())) == len(paths)


def test_drawn_images_have_names_that_can_be_written():
    given = [b'a.heic', b'fa\xe7ade.png', b'x.\xe9', b'v' * 251 + b'.png', b'v' * 250 + b'w.png']
    names = drawn_names([Path('x', os.fsdecode(name)) for name in given])
    wanted = [b'a.heic.jpg', b'fa\xe7ade.png', b'x.\xe9.jpg', b'v' * 196 + b'.png', b'v' * 196 + b'_2.png']
    assert list(names.values()) == list(map(os.fsdecode, wanted))


def test_a_image_is_drawn_into_a_file_of_a_known_suffix(tmp_path, monkeypatch):
    image, suffixes = np.zeros((8, 9, 3), np.uint8), []
    image[..., 0] = 200  # blue
    imencode = cv2.imencode

    def encode(suffix, *given):
        suffixes.append(suffix.encode())  # OpenCV would crash where this fails
        return imencode(suffix, *given)

    monkeypatch.setattr(cv2, 'imencode', encode)
    predictor = SimpleNamespace(result=lambda *_: Result('a.jpg', image, {}))
    path = tmp_path / os.fsdecode(b'\xe9') / 'a.PNG'
    Predictor.draw(predictor, 'a.jpg', None, path)
    np.testing.assert_array_equal(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR), image)
    with pytest.raises(InputError, match=r"b\.\\udce9: no image is written as '\.\\udce9', but as \.jpg, "):
        Predictor.draw(predictor, 'a.jpg', None, tmp_path / os.fsdecode(b'b.\xe9'))
    assert suffixes == [b'.png']


@pytest.mark.parametrize('method', [Predictor.predict, predict_each, try_predict])
def test_the_batch_size_is_named_as_the_argument_that_it_is(method):
    with pytest.raises(ArgumentError, match=r'^batch_size: expected 1 or more, got 0$'):
        next(method(None, ['a.jpg'], batch_size=0))


def test_a_device_that_is_not_there():
    assert _device('cpu') == torch.device('cpu')
    for name in ('cuda:99', 'gpu'):
        with pytest.raises(ArgumentError, match=f'^device: {name}: '):
            _device(name)


def test_a_palette_that_mmdet_does_not_have():
    pytest.importorskip('mmdet')
    from icconv_mm.app.adapters.detection import Adapter

    meta = {'classes': ('cat', 'dog'), 'palette': 'coco'}
    assert len(Adapter().colors(meta)) >= 2
    for named, classes in (('foo', 2), ('voc', 99)):
        with pytest.raises(ArgumentError, match=f"^palette: mmdet has no palette '{named}' for these classes"):
            Adapter().colors({'classes': ('cat',) * classes, 'palette': named})


def _entries(*names):
    return [{'id': 10 + i, 'file_name': name} for i, name in enumerate(names)]


def test_images_match_annotations_by_name_or_by_folder():
    images = _entries('a/1.jpg', 'b/1.jpg', '2.jpg')
    paths = [Path('set/b/1.jpg'), Path('set/a/1.jpg'), Path('elsewhere/2.jpg')]
    assert match_images(paths, images, 'x.json') == {paths[0]: 11, paths[1]: 10, paths[2]: 12}


@pytest.mark.parametrize(
    ('names', 'paths', 'message'),
    [
        (['2.jpg'], ['1.jpg'], "^ann_file: x.json: no image '1.jpg'"),
        (['a/1.jpg', 'b/1.jpg'], ['c/1.jpg'], "no image '1.jpg'"),
        (['cam1/1.jpg'], ['cam2/1.jpg'], "no image '1.jpg' for cam2/1.jpg, only 'cam1/1.jpg'"),
        (['1.jpg', '1.jpg'], ['c/1.jpg'], "2 images '1.jpg'"),
        (['1.jpg'], ['a/1.jpg', 'b/1.jpg'], 'fits several images: a/1.jpg, b/1.jpg'),
    ],
)
def test_ambiguous_annotations_are_refused(names, paths, message):
    with pytest.raises(ArgumentError, match=message):
        match_images([Path(path) for path in paths], _entries(*names), 'x.json')


def test_images_that_are_links_match_by_their_own_names(tmp_path):
    (tmp_path / 'stored').touch()
    (tmp_path / 'a.png').symlink_to(tmp_path / 'stored')
    assert match_images([tmp_path / 'a.png'], [{'id': 7, 'file_name': 'a.png'}], 'a.json') == {tmp_path / 'a.png': 7}


def test_maps_that_overflow_are_told_until_images_have_good_ones():
    model = torch.nn.Module()
    model.backbone = torch.nn.Conv2d(3, 1, 1)
    predictor = Predictor.__new__(Predictor)
    predictor.model, predictor._features, predictor._checkpoint = model, None, 'net.pth'
    batch = [(torch.ones(3, 4, 4), None)]
    model.test_step = lambda images: [model.backbone(torch.stack(images))]
    torch.nn.init.constant_(model.backbone.weight, 3e38)
    for _ in range(2):
        with pytest.raises(InputError, match=r"^net\.pth: the backbone's maps are not finite: such a network"):
            predictor.run_batch(batch)
        assert not model.backbone._forward_hooks  # an export traces the network
    torch.nn.init.ones_(model.backbone.weight)
    predictor.run_batch(batch)
    torch.nn.init.constant_(model.backbone.weight, 3e38)  # later images cost nothing
    predictor.run_batch(batch)
