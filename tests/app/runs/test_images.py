"""Images, videos and addresses that predictions are asked for."""

import http.server
import os
import threading
from itertools import pairwise

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image
from servers import dripping_server

from icconv_mm.app.runs import images
from icconv_mm.datasets.loading import ImageFileError
from icconv_mm.errors import InputError, MissingFileError
from icconv_mm_runtime.tiling import tile_corners


def test_large_images_are_read_reduced(tmp_path, monkeypatch):
    monkeypatch.setattr(images, 'LARGE', 100_000)
    monkeypatch.setattr(images, 'REDUCED', 300)
    Image.fromarray(np.zeros((400, 600, 3), np.uint8)).save(tmp_path / 'a.jpg')
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(tmp_path / 'b.jpg')
    large, small = images.load_input(tmp_path / 'a.jpg'), images.load_input(tmp_path / 'b.jpg')
    assert large.shape == (400, 600) and 150 <= max(large.image.shape) <= 400
    assert small.image is None and images.load_input(tmp_path / 'none.jpg').image is None


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tif', '.webp'])
@pytest.mark.parametrize('oriented', [True, False])
def test_images_are_rotated_as_the_pipelines_rotate_them(tmp_path, monkeypatch, suffix, oriented):
    """Whole and reduced, and with the size of what mmcv reads."""
    monkeypatch.setattr(images, 'LARGE', 100)
    monkeypatch.setattr(images, 'REDUCED', 300)
    rows, columns = np.mgrid[:800, :1200]
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f'a{suffix}'
    Image.fromarray(np.stack([rows / 4, columns / 6, rows / 8], -1).astype(np.uint8)).save(path, exif=exif)
    expected = mmcv.imfrombytes(path.read_bytes(), 'color' if oriented else 'color_ignore_orientation')
    np.testing.assert_array_equal(images.read_image(path, oriented=oriented), expected)
    image = images.load_input(path, oriented)
    assert image.shape == expected.shape[:2] and max(image.image.shape) == 300
    reduced = cv2.resize(expected, image.image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(int) - image.image).mean() < 2


def test_grey_of_16_bits_is_what_the_pipelines_read(tmp_path):
    grey = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), grey)
    np.testing.assert_array_equal(images.read_image(tmp_path / 'a.png'), cv2.imread(str(tmp_path / 'a.png')))


def test_videos_frame_by_frame(tmp_path):
    frames = [np.full((40, 60, 3), value, np.uint8) for value in (10, 120, 240)]
    writer = images.VideoWriter(tmp_path / 'a' / 'video.mp4', 5)
    for frame in frames:
        writer.add(frame)
    writer.close()
    video = images.Video(str(writer.path))
    decoded = list(video)
    assert video.frames == len(decoded)
    assert [image.path.name for image in decoded] == [f'video_{n:06d}.jpg' for n in (1, 2, 3)]
    assert round(video.rate) == 5
    assert all(abs(image.image.mean() - frame.mean()) < 8 for image, frame in zip(decoded, frames))
    stills = [Image.fromarray(frame) for frame in frames]
    stills[0].save(tmp_path / 'b.gif', save_all=True, append_images=stills[1:])
    assert [round(image.image.mean(), -1) for image in images.Video(str(tmp_path / 'b.gif'))] == [10, 120, 240]
    with pytest.raises(MissingFileError, match=r'no such file: .*c\.mp4'):
        images.Video(str(tmp_path / 'c.mp4'))
    (tmp_path / 'd.mp4').write_bytes(b'no video')
    with pytest.raises(InputError, match=r'd\.mp4: is no video file'):
        images.Video(str(tmp_path / 'd.mp4'))
    with pytest.raises(InputError, match='camera 97: OpenCV cannot open it'):
        images.Video('97')


def test_no_path_of_a_video_that_is_not_utf_8_reaches_opencv(tmp_path, monkeypatch):
    """OpenCV would crash."""

    def never(*given):
        raise AssertionError(given)

    monkeypatch.setattr(cv2, 'VideoCapture', never)
    monkeypatch.setattr(cv2, 'VideoWriter', never)
    path = tmp_path / os.fsdecode(b'caf\xe9.mp4')
    path.write_bytes(b'no video')
    said = r'caf\\udce9\.mp4: OpenCV opens no video whose path is not UTF-8: rename it'
    with pytest.raises(InputError, match=said):
        images.Video(str(path))
    with pytest.raises(InputError, match=said):
        images.VideoWriter(path, 5).add(np.zeros((4, 4, 3), np.uint8))


def test_what_is_a_video(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / '2024').mkdir()
    assert not images.is_video('2024')  # a folder, not a camera
    assert all(map(images.is_video, ('0', 'a.MP4', 'rtsp://x/y', 'b.gif', 'http://x/a.mp4?size=1')))
    assert not any(map(images.is_video, ('a.jpg', 'http://x/a.jpg', 'folder', '*.png')))


def test_addresses(tmp_path, monkeypatch):
    _, jpeg = cv2.imencode('.jpg', np.full((8, 9, 3), 77, np.uint8))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if 'a.jpg' in self.path else 404)
            self.end_headers()
            self.wfile.write(jpeg.tobytes())

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}'
    (path,) = images.find_inputs(f'{address}/a.jpg?width=3', tmp_path)
    assert path.name == 'a.jpg' and images.read_image(path).shape == (8, 9, 3)
    with pytest.raises(InputError, match=r'/gone\.jpg: cannot be fetched \(Not Found\)'):
        images.find_inputs(f'{address}/gone.jpg', tmp_path)
    server.shutdown()


@pytest.mark.parametrize(('said', 'is_whole'), [(None, True), (10_000, True), (10_001, False), (1 << 40, False)])
def test_an_answer_that_is_cut_off(tmp_path, said, is_whole):
    """A video of which a part came is not taken for the whole."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            if said is not None:
                self.send_header('Content-Length', str(said))
            self.end_headers()
            self.wfile.write(b'x' * 10_000)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}/a.mp4'
    if is_whole:
        assert images.fetch_input(address, tmp_path).stat().st_size == 10_000
    else:
        with pytest.raises(InputError, match=rf'a\.mp4: cannot be fetched \(10000 of {said} bytes came\)'):
            images.fetch_input(address, tmp_path)
        assert not (tmp_path / 'a.mp4').exists()
    server.shutdown()


def test_an_address_that_drips(tmp_path, monkeypatch):
    monkeypatch.setattr(images, '_LIMIT', 0.5)
    said = r'a\.jpg: cannot be fetched \(no whole answer in 0\.5 seconds\)'
    with dripping_server() as address, pytest.raises(InputError, match=said):
        images.find_inputs(f'{address}/a.jpg', tmp_path)


def test_folders_of_videos_and_of_heic(tmp_path, monkeypatch):
    (tmp_path / 'a.mp4').touch()
    with pytest.raises(MissingFileError, match=r'no images, but videos: give one of them by name: a\.mp4'):
        images.find_inputs(str(tmp_path), tmp_path)
    (tmp_path / 'b.heic').touch()
    assert [path.name for path in images.find_inputs(str(tmp_path), tmp_path)] == ['b.heic']
    monkeypatch.setattr(images, 'is_installed', lambda name: False)
    with pytest.raises(InputError, match='pip install pillow-heif'):
        images.load_input(tmp_path / 'b.heic')
    (tmp_path / 'c.jpg').write_bytes(b'no image')
    with pytest.raises(ImageFileError, match=r'c\.jpg: cannot be read'):
        images.read_image(tmp_path / 'c.jpg')


@pytest.mark.parametrize('size', [(50, 100), (100, 100), (250, 1000), (101, 99)])
def test_tiles_cover_a_image_and_overlap(size):
    covered = np.zeros(size, dtype=int)
    corners = tile_corners(size, 100)
    for top, left in corners:
        assert covered[top : top + 100, left : left + 100].shape == (min(size[0], 100), min(size[1], 100))
        covered[top : top + 100, left : left + 100] += 1
    assert covered.min() == 1
    lefts = sorted({left for _, left in corners})
    assert all(b - a <= 80 for a, b in pairwise(lefts))
