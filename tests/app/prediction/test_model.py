"""``icconv_mm.load``: a network from its file, and the results that it returns."""

import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import icconv_mm
import icconv_mm_runtime
from icconv_mm.app.prediction.checkpoint import resized_labels
from icconv_mm.errors import ArgumentError, InputError, MissingFileError
from icconv_mm_runtime import Result, RuntimeInputError


@pytest.fixture(scope='module')
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    from small_network import write_network

    return write_network(tmp_path_factory.mktemp('network') / 'network.onnx')


@pytest.fixture(scope='module')
def result(network, image):
    return icconv_mm.load(network)(image, score_thr=0)


def test_a_result_has_the_arrays_of_each_task(result):
    assert (result.path, result.image.shape, result.classes) == ('array', (48, 64, 3), ('ball', 'box', 'cup'))
    assert result.names == tuple(result.classes[label] for label in result.labels)
    shapes = {name: getattr(result, name).shape for name in ('boxes', 'scores', 'labels', 'masks', 'seg_map', 'probs')}
    assert shapes == dict(boxes=(3, 4), scores=(3,), labels=(3,), masks=(3, 48, 64), seg_map=(48, 64), probs=(3,))
    assert result.keypoints.shape == (3, 2, 3) and result.keypoint_names == ('nose', 'tail')
    for task, name, values in (('pose', 'keypoint_scores', result.keypoints[..., 2]), ('masks', 'boxes', result.boxes)):
        best_first = np.argsort(-result.tasks[task]['scores'], kind='stable')
        np.testing.assert_array_equal(values, result.tasks[task][name][best_first])


@pytest.mark.parametrize(
    ('task', 'there'),
    [
        ('boxes', {'boxes', 'scores', 'labels'}),
        ('map', {'seg_map'}),
        ('pose', {'keypoints', 'scores'}),
        ('class', {'probs'}),
    ],
)
def test_arrays_that_a_task_does_not_have_are_none(result, task, there):
    part, names = result.one(task), {'boxes', 'scores', 'labels', 'masks', 'seg_map', 'keypoints', 'probs'}
    assert {name for name in names if getattr(part, name) is not None} == there


def test_images_are_given_as_a_file_as_pixels_or_several(network, image, tmp_path):
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), image)
    model = icconv_mm.load(str(network), device='cpu')
    one, (first, second) = model(str(path)), model([path, image], batch_size=2)
    for other in (first, second, model(image)):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.boxes, other.boxes)
    assert (one.path, first.path, second.path) == (str(path), str(path), 'array')
    assert model([]) == []


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('none.jpg', 'image: no such file: none.jpg'),
        ('tools', r'images: tools: no image in this folder'),
        (np.zeros((4, 4), np.uint8), r'images: an array must be .* in the order BGR, got \[4, 4\] of uint8'),
        (np.zeros((4, 4, 3)), r'images: an array must be .*, got \[4, 4, 3\] of float64'),
        (torch.rand(3, 4, 4), r'images: a tensor must be .* in the order RGB, got \[3, 4, 4\] of torch.float32'),
        (torch.ones(4, 4, 3, dtype=torch.uint8), r'images: a tensor must be \[3, height, width\] of uint8'),
        (
            Image.fromarray(np.zeros((4, 4), np.uint16)),
            'images: an image of PIL must have 8 bits a channel, got mode I;16',
        ),
        ([3], 'images: expected .*, got int'),
        (None, 'images: expected .*, got NoneType'),
    ],
)
def test_what_is_no_image(network, given, message):
    with pytest.raises(InputError, match=message):
        icconv_mm.load(network)(given)


def test_pixels_of_other_libraries(network, image, tmp_path):
    """Images of PIL and tensors are RGB; EXIF rotates an image of PIL as it rotates its file."""
    model, rgb = icconv_mm.load(network), np.ascontiguousarray(image[..., ::-1])
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    for pixels in (Image.fromarray(rgb), torch.from_numpy(rgb).permute(2, 0, 1)):
        for result in (model(pixels), *model([pixels]), *icconv_mm_runtime.Session(network).predict(pixels)):
            assert result.path.startswith('array')
            np.testing.assert_array_equal(result.image, image)
    (result,) = model(tmp_path)
    np.testing.assert_array_equal(result.boxes, model(image).boxes)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(rgb).save(tmp_path / 'rotated.jpg', exif=exif, quality=100, subsampling=0)
    rotated = model(Image.open(tmp_path / 'rotated.jpg'))
    assert rotated.image.shape == (64, 48, 3)
    assert np.abs(rotated.image.astype(int) - model(tmp_path / 'rotated.jpg').image).max() <= 2  # two decoders of JPEG


def test_a_result_in_one_line(network, image):
    result = icconv_mm.load(network)(image, score_thr=0.1)
    assert repr(result) == (
        "Result('array': boxes: 1 ball, 1 box, 1 cup; masks: 1 ball, 1 box, 1 cup; map: ball, box, cup; pose: 3 ball; "
        f'class: {result.classes[int(result.probs.argmax())]} {result.probs.max():.2f})'
    )
    nothing = icconv_mm.load(network)(image, score_thr=1)
    assert (
        repr(nothing).startswith("Result('array': boxes: nothing; masks: nothing; map: ball")
        and len(repr(nothing)) < 200
    )


def test_a_damaged_image(network, tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(b'no image')
    with pytest.raises(InputError, match=r'a\.png'):
        icconv_mm.load(network)(path)


def test_an_image_is_drawn_with_what_scores_enough(result, image):
    without, drawn = result.one('boxes').plot(2.0), result.one('boxes').plot(0.0)
    np.testing.assert_array_equal(without, image)
    assert drawn.shape == image.shape and (drawn != image).any()


def test_records_of_coco(result):
    records = result.one('boxes').to_coco(7, [3, 5, 9])
    assert [record['category_id'] for record in records] == [3, 5, 9] and {
        record['image_id'] for record in records
    } == {7}
    x1, y1, x2, y2 = result.tasks['boxes']['boxes'][0]
    np.testing.assert_allclose(records[0]['bbox'], [x1, y1, x2 - x1, y2 - y1], atol=1e-3)
    assert len(result.to_coco()) > len(records)


def test_detections_of_supervision(result):
    supervision = pytest.importorskip('supervision')
    detections = result.to_supervision()
    assert isinstance(detections, supervision.Detections) and len(detections) == 3
    np.testing.assert_array_equal(detections.xyxy, result.boxes)
    np.testing.assert_array_equal(detections.mask, result.masks)
    assert list(detections['class_name']) == [result.classes[label] for label in detections.class_id]
    with pytest.raises(RuntimeInputError, match='a network for semantic has no boxes'):
        result.one('map').to_supervision()


def test_supervision_is_not_installed(result, monkeypatch):
    monkeypatch.setitem(sys.modules, 'supervision', None)
    with pytest.raises(RuntimeInputError, match='pip install supervision'):
        result.to_supervision()


def test_files_that_cannot_be_loaded(network, tmp_path):
    with pytest.raises(MissingFileError, match='checkpoint: no such file'):
        icconv_mm.load(tmp_path / 'none.onnx')
    with pytest.raises(ArgumentError, match=r'config: .* is an exported file, which has no config'):
        icconv_mm.load(network, 'config.py')
    (tmp_path / 'a.onnx').write_bytes(b'nothing')
    with pytest.raises(InputError, match=r'a\.onnx'):
        icconv_mm.load(tmp_path / 'a.onnx')


def test_the_config_beside_a_checkpoint(tmp_path, caplog):
    pytest.importorskip('mmengine')
    from icconv_mm.app.runs.config import config_beside

    checkpoint = tmp_path / 'iter_3.pth'
    with pytest.raises(MissingFileError):
        config_beside(checkpoint)
    torch.save({'meta': {'cfg': "model = dict(type='A')"}}, checkpoint)
    with pytest.raises(ArgumentError, match=r'config: .*none beside it; say which'):
        icconv_mm.load(checkpoint)
    (tmp_path / 'notes.py').write_text('model = print(1)')
    (tmp_path / 'other.py').write_text("model = dict(type='os.system', command='true')")
    with pytest.raises(ArgumentError, match=r'none beside it \(notes\.py, other\.py: not as its training wrote'):
        config_beside(checkpoint)
    (tmp_path / 'a.py').write_text("model = dict(type='A')")
    assert config_beside(checkpoint) == tmp_path / 'a.py'
    (tmp_path / 'b.py').write_text("model = dict(type='A')")
    with pytest.raises(ArgumentError, match=r'several configs beside it: a\.py, b\.py'):
        config_beside(checkpoint)


def test_labels_of_a_reduced_image_are_those_of_the_nearest_pixels():
    labels = np.arange(6).reshape(2, 3)
    expected = cv2.resize(labels.astype(np.uint8), (7, 5), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(resized_labels(labels, (5, 7)), expected)
    np.testing.assert_array_equal(resized_labels(np.stack([labels, labels]), (5, 7)), np.stack([expected] * 2))
    assert resized_labels(labels, (2, 3)) is labels


def test_a_result_of_boxes_and_people_has_those_of_the_boxes(image):
    people = dict(keypoints=np.zeros((1, 2, 2)), keypoint_scores=np.ones((1, 2)), scores=np.ones(1))
    boxes = dict(boxes=np.zeros((2, 4)), scores=np.zeros(2), labels=np.zeros(2, int))
    described = {'people': dict(kind='pose', classes=['person']), 'objects': dict(kind='detection', classes=['a'])}
    result = Result('array', image, {'people': people, 'objects': boxes}, described, score_thr=0)
    assert len(result.scores) == 2 and result.names == ('a', 'a') and len(result.keypoints) == 1
    assert len(result.one('people').scores) == 1


def test_a_result_has_the_objects_from_the_threshold_up(network, image):
    """Those of each class by default, of all with 0; COCO results have all."""
    scores = np.float32([0.9, 0.6, 0.4, 0.2])
    boxes = dict(boxes=np.arange(16.0).reshape(4, 4), scores=scores, labels=np.int64([0, 1, 7, 1]))
    task = {'': dict(kind='detection', classes=['a', 'b'], thresholds=[0.95, 0.5])}
    counted = {}
    for score_thr in (None, 0, 0.5):
        result = Result('array', image, {'': boxes}, task, score_thr)
        counted[score_thr] = list(zip(result.boxes[:, 0].tolist(), result.scores.tolist(), result.names, strict=True))
        assert len(result.to_coco()) == 4 and len(result.tasks['']['scores']) == 4
    every = list(zip([0, 4, 8, 12], scores.tolist(), ['a', 'b', '7', 'b']))
    assert counted == {None: every[1:3], 0: every, 0.5: every[:2]}
    model = icconv_mm.load(network)
    assert (
        len(model(image, score_thr=1).scores) == 0 < len(model(image).scores) <= len(model(image, score_thr=0).scores)
    )
    assert model(image).plot().shape == image.shape
    for wrong in (-0.1, 1.1, 'a'):
        with pytest.raises(ArgumentError, match='score_thr: expected a score from 0 to 1'):
            model(image, score_thr=wrong)
