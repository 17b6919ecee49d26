"""A bad image is named, or skipped when told."""

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile as Plain
from mmengine.dataset import BaseDataset
from PIL import Image

from icconv_mm.datasets.loading import ImageFileError, LoadImageFromFile, find_images, image_defect
from icconv_mm.errors import MissingFileError


@pytest.fixture(params=['.jpg', '.png'])
def image(tmp_path, request):
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / f'image{request.param}'
    cv2.imwrite(str(path), noise)
    return path


def cut(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


def test_loads_as_mmcv_does(image):
    ours = LoadImageFromFile().transform({'img_path': str(image)})
    theirs = Plain().transform({'img_path': str(image)})
    np.testing.assert_array_equal(ours['img'], theirs['img'])
    assert {key: ours[key] for key in ('img_shape', 'ori_shape')} == {'img_shape': (40, 60), 'ori_shape': (40, 60)}


@pytest.mark.parametrize('keep', [0.0, 0.1, 0.5, 0.8])
def test_truncated_file_is_named(image, keep):
    cut(image, keep)
    with pytest.raises(ImageFileError, match=f'{image.name}: (empty file|truncated or corrupt|cannot be decoded)'):
        LoadImageFromFile().transform({'img_path': str(image)})


@pytest.mark.parametrize('keep', [0.0, 0.5, 0.98])
def test_truncated_seg_map_is_named(image, tmp_path, keep):
    labels = tmp_path / 'labels.png'
    cv2.imwrite(str(labels), np.random.default_rng(0).integers(0, 7, (40, 60), dtype=np.uint8))
    entry = {'img_path': str(image), 'seg_map_path': str(labels)}
    assert LoadImageFromFile().transform(dict(entry))['img'].shape == (40, 60, 3)
    cut(labels, keep)
    with pytest.raises(ImageFileError, match=r'labels\.png: (empty file|truncated or corrupt)'):
        LoadImageFromFile().transform(dict(entry))
    assert LoadImageFromFile(skip_bad=True).transform(dict(entry)) is None


def test_truncation_is_found_before_decoding(tmp_path, monkeypatch):
    """OpenCV 4.8 decodes half a JPEG and fills the rest with grey; it must not get the chance."""
    path = tmp_path / 'image.jpg'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8))
    cut(path, 0.5)
    assert 'truncated' in image_defect(path)
    monkeypatch.setattr(Plain, 'transform', lambda self, results: pytest.fail('the file was decoded'))
    with pytest.raises(ImageFileError, match=r'image\.jpg: truncated'):
        LoadImageFromFile().transform({'img_path': str(path)})


def test_a_jpeg_without_its_last_bytes_is_loaded(tmp_path):
    path = tmp_path / 'image.jpg'
    image = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8), (320, 240))
    cv2.imwrite(str(path), image)
    whole = LoadImageFromFile().transform({'img_path': str(path)})['img']
    path.write_bytes(path.read_bytes()[:-20])
    loaded = LoadImageFromFile().transform({'img_path': str(path)})['img']
    np.testing.assert_array_equal(loaded[:-20], whole[:-20])


def test_data_after_the_end_of_a_jpeg_is_fine(tmp_path):
    path = tmp_path / 'image.jpg'
    cv2.imwrite(str(path), np.zeros((8, 8, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes() + b'maker note' * 1000)
    assert image_defect(path) is None


@pytest.mark.parametrize('content', [b'text, not an image', b'\x89PNG\r\n\x1a\n' + b'0' * 50])
def test_no_image(tmp_path, content):
    path = tmp_path / 'a.jpg'
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match=r'a\.jpg'):
        LoadImageFromFile().transform({'img_path': str(path)})


def test_missing_file():
    with pytest.raises(ImageFileError, match=r'/nowhere/a\.jpg: no such file'):
        LoadImageFromFile().transform({'img_path': '/nowhere/a.jpg'})


def test_given_array_is_taken(image):
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    results = LoadImageFromFile(to_float32=True).transform({'img': pixels})
    assert results['img'].dtype == np.float32
    assert results['img_shape'] == results['ori_shape'] == (4, 6)


class Images(BaseDataset):
    def load_data_list(self):
        return [{'img_path': path} for path in self.paths]

    def __init__(self, paths, **kwargs):
        self.paths = paths
        super().__init__(**kwargs)


def test_skipped_in_training(image, tmp_path, capfd):
    bad = tmp_path / f'bad{image.suffix}'
    bad.write_bytes(image.read_bytes()[:100])
    data = Images([str(bad), str(image)], pipeline=[LoadImageFromFile(skip_bad=True)])
    assert data[0]['img_path'] == str(image)
    data = Images([str(bad), str(image)], pipeline=[LoadImageFromFile()])
    with pytest.raises(ImageFileError, match='bad'):
        data[0]


def test_finding_images(tmp_path):
    (tmp_path / 'below').mkdir()
    for name in ('b.PNG', 'a.jpg', 'note.txt', 'below/c.tif'):
        (tmp_path / name).touch()
    assert find_images(tmp_path / 'note.txt') == [tmp_path / 'note.txt']  # a file is what was asked for
    assert [path.name for path in find_images(tmp_path)] == ['a.jpg', 'b.PNG']
    assert [path.name for path in find_images(tmp_path, recursive=True)] == ['a.jpg', 'b.PNG', 'c.tif']
    assert [path.name for path in find_images(f'{tmp_path}/*/*')] == ['c.tif']
    with pytest.raises(MissingFileError, match=r'no image \(\.jpg, .* matches nothing/\*'):
        find_images('nothing/*')
    with pytest.raises(MissingFileError, match='no such file or folder: nothing'):
        find_images('nothing')
    for name in ('b.PNG', 'a.jpg'):
        (tmp_path / name).unlink()
    with pytest.raises(MissingFileError, match=r"in the folder .*; folders in it have some: '.*/\*\*/\*'"):
        find_images(tmp_path)


@pytest.mark.parametrize(
    'annotations',
    [
        {'instances': [{'bbox': [0.0, 0.0, 4.0, 4.0]}, {'bbox': [0.0, float('nan'), 4.0, 4.0]}]},
        {'instances': [{'bbox': [0.0, 0.0, float('inf'), 4.0]}]},
        {'bbox': np.array([[0, 0, np.nan, 1]])},
        {'keypoints': np.array([[[0, np.inf]]])},
    ],
)
def test_annotations_that_are_not_finite(tmp_path, annotations):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ImageFileError, match=r'a\.png: .* not finite'):
        LoadImageFromFile().transform({'img_path': str(path), **annotations})
    assert LoadImageFromFile(skip_bad=True).transform({'img_path': str(path), **annotations}) is None
    assert LoadImageFromFile().transform({'img_path': str(path), 'instances': [{'bbox': [0, 0, 1, 1]}]}) is not None


@pytest.mark.parametrize('height, width, fits', [(40, 60, True), (60, 40, False), (40, 61, False), (None, 61, True)])
def test_size_that_annotations_say(image, height, width, fits):
    said = {'height': height, 'width': width}
    for entry in (said, {'labels': {'boxes': {}, 'people': said}}):
        entry = {'img_path': str(image), **entry}
        if fits:
            assert LoadImageFromFile().transform(dict(entry))['img'].shape == (40, 60, 3)
            continue
        message = rf'{image.name}: the image has 60 x 40 pixels, but its annotations say {width} x {height}$'
        with pytest.raises(ImageFileError, match=message):
            LoadImageFromFile().transform(dict(entry))
        assert LoadImageFromFile(skip_bad=True).transform(dict(entry)) is None


@pytest.mark.parametrize('orientation', [3, 6, 8])
def test_labels_of_an_image_before_exif_turns_it(tmp_path, orientation):
    path = tmp_path / 'a.jpg'
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path, exif=exif)
    seen, turns = {'height': 60, 'width': 40}, orientation > 4
    sensor = {'height': 40, 'width': 60}
    upright, before = (seen, sensor) if turns else (sensor, seen)
    assert LoadImageFromFile().transform({'img_path': str(path), **upright})['img_shape'] == tuple(upright.values())
    hint = rf': EXIF rotates the image \(orientation {orientation}\).*color_ignore_orientation' if turns else '40 x 60$'
    with pytest.raises(ImageFileError, match=hint):
        LoadImageFromFile().transform({'img_path': str(path), **before})
    as_stored = LoadImageFromFile(color_type='color_ignore_orientation')
    assert as_stored.transform({'img_path': str(path), **sensor})['img_shape'] == (40, 60)
