"""One function decodes images: other pixels than 8 bits, pages and frames are never used in part without a word."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from icconv_mm_runtime import RuntimeInputError
from icconv_mm_runtime.decoding import ImageDefect, count_pages, decode_image, decode_mask, open_video
from icconv_mm_runtime.images import read_all

SIZE = (16, 12)


def saved(kind, count, **options):
    """Pages of an image in a format."""
    pages = [Image.new(options.pop('mode', 'RGB'), SIZE, (20 * k, 0, 9)) for k in range(count)]
    pages[0].save(file := io.BytesIO(), kind, save_all=count > 1, append_images=pages[1:], **options)
    return file.getvalue()


def encoded(pixels, suffix):
    return cv2.imencode(suffix, pixels)[1].tobytes()


@pytest.mark.parametrize('kind', ['TIFF', 'PNG', 'WEBP', 'GIF'])
@pytest.mark.parametrize('count', [1, 2, 5])
def test_pages_are_counted(kind, count):
    content = saved(kind, count)
    assert count_pages(io.BytesIO(content)) == count
    for end in range(0, len(content), 7):  # what is cut is no endless loop
        assert count_pages(io.BytesIO(content[:end])) <= count
    if count > 1:
        for read in (decode_image, decode_mask):
            with pytest.raises(ImageDefect, match=f'^has {count} pages, of which one alone would be read'):
                read(content)


@pytest.mark.parametrize('options', [dict(big_tiff=True), dict(tiffinfo={254: 0})])
def test_pages_of_other_tiffs(options):
    assert count_pages(io.BytesIO(saved('TIFF', 3, **options))) == 3


@pytest.mark.parametrize(('count', 'said'), [(3, 3), (1, 1)])
def test_a_stack_of_imagej_may_have_one_directory(count, said):
    """The pixels of its other images follow those of the first."""
    content = saved('TIFF', 1, tiffinfo={270: f'ImageJ=1.53t\nimages={count}\nslices={count}\nloop=false\n'})
    assert count_pages(io.BytesIO(content + bytes(600 * (count - 1)))) == said


@pytest.mark.parametrize('order', ['<', '>'])
def test_thumbnails_are_no_pages(order):
    """Two directories, the second of which is marked as a reduced copy; and a circle of directories."""
    start = b'II*\0' if order == '<' else b'MM\0*'

    def directory(mark, following):
        return struct.pack(f'{order}HHHIII', 1, 254, 4, 1, mark, following)

    two = start + struct.pack(f'{order}I', 8) + directory(0, 26) + directory(1, 0)
    circle = start + struct.pack(f'{order}I', 8) + directory(0, 26) + directory(0, 8)
    assert [count_pages(io.BytesIO(content)) for content in (two, circle)] == [1, 2]


@pytest.mark.parametrize('suffix', ['.pbm', '.pgm', '.ppm', '.pam'])
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('between', [b'', b'\n'])
def test_images_of_a_pnm_that_follow_each_other_are_counted(suffix, bits, between):
    pixels = np.random.default_rng(0).integers(0, 1 << bits, (12, 13, 3)).astype(f'uint{bits}')  # rows end in a byte
    if suffix == '.pbm':
        pixels = np.where(pixels[..., 0] > 99, 255, 0).astype(np.uint8)
    content = encoded(pixels[..., 0] if suffix == '.pgm' else pixels, suffix)
    content = content.replace(b'ENDHDR', b'TUPLTYPE RGB\nENDHDR')  # without it, OpenCV 4.11 reads no PAM of 16 bits
    commented = content.replace(b'\n', b' # a comment\n', 1)
    for start in (content, content if suffix == '.pam' else commented):
        assert count_pages(io.BytesIO(start)) == 1 and decode_image(start).shape == (12, 13, 3)
        assert count_pages(io.BytesIO(start + between + content + between + content)) == 3
        for end in range(0, len(start)):
            assert count_pages(io.BytesIO(start[:end])) == 1
        with pytest.raises(ImageDefect, match=r'^has 2 pages, of which one alone'):
            decode_image(start + between + content)


def test_a_pnm_in_decimals_is_one_image():
    assert decode_image(b'P2\n2 2\n255\n1 2 3 4\n').tolist() == [[[1] * 3, [2] * 3], [[3] * 3, [4] * 3]]


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF', 'PPM'])
def test_pixels_of_8_bits_are_those_of_opencv(kind):
    content = saved(kind, 1)
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode_image(content), expected)


@pytest.mark.parametrize('suffix', ['.png', '.tiff'])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_pixels_of_16_bits_are_their_upper_8(suffix, channels):
    pixels = np.linspace(0, 65535, 12 * 16 * channels).reshape(12, 16, channels).astype(np.uint16)
    content = encoded(pixels, suffix)
    image = decode_image(content)
    assert image.shape == (12, 16, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))
    with pytest.raises(ImageDefect, match=r'^pixels go up to 409\d of 65535, which are loaded as 15 of 255'):
        decode_image(encoded(pixels // 16, suffix))


@pytest.mark.parametrize('suffix', ['.png', '.tiff'])
@pytest.mark.parametrize(('bright', 'is_dark'), [(1, True), (9, True), (20, False)])
def test_pixels_that_a_sensor_has_too_bright_do_not_hide_a_dark_image(suffix, bright, is_dark):
    pixels = np.random.default_rng(0).integers(0, 4096, (100, 100)).astype(np.uint16)
    pixels.flat[np.arange(bright) * 7] = 65535
    if is_dark:
        with pytest.raises(
            ImageDefect, match=r'go up to 409\d of 65535, but for one in a thousand, which are loaded as 15'
        ):
            decode_image(encoded(pixels, suffix))
    else:
        assert decode_image(encoded(pixels, suffix)).max() == 255


def test_floats_have_no_known_range():
    with pytest.raises(ImageDefect, match=r'^pixels of float32, whose range is not known'):
        decode_image(encoded(np.random.default_rng(0).random((12, 16, 3), np.float32), '.tiff'))


@pytest.mark.parametrize(
    ('content', 'said'),
    [(b'', 'is no image'), (b'text', 'is no image'), (b'\x89PNG\r\n', 'is no image'), (b'II*\0', 'damaged, or a TIFF')],
)
def test_what_is_no_image(content, said):
    with pytest.raises(ImageDefect, match=said):
        decode_image(content)


def test_the_runtime_names_the_file(tmp_path):
    (tmp_path / 'a.tif').write_bytes(saved('TIFF', 3))
    with pytest.raises(RuntimeInputError, match=r'a\.tif: has 3 pages'):
        list(read_all(tmp_path))


@pytest.mark.parametrize('text', ['#EXTM3U\n', 'ffconcat version 1.0\n', '\ufeff#EXTM3U\n', '<MPD>', '[playlist]\n'])
def test_a_list_of_other_files_is_no_video(tmp_path, text):
    (tmp_path / 'a.mp4').write_text(text, encoding='utf-8')
    with pytest.raises(ImageDefect, match='is no video file'):
        open_video(tmp_path / 'a.mp4')


@pytest.mark.parametrize(('suffix', 'code'), [('.mp4', 'mp4v'), ('.avi', 'MJPG'), ('.mkv', 'MJPG'), ('.mov', 'mp4v')])
def test_videos_are_opened(tmp_path, suffix, code):
    path = tmp_path / f'a{suffix}'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 5, (64, 48))
    if not writer.isOpened():
        pytest.skip(f'this OpenCV writes no {code} in {suffix}')
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    assert open_video(path).read()[0]
