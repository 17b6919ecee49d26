"""What predictions are asked for: images in files, folders, globs and addresses; frames of videos and cameras."""

import http.client
import itertools
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from icconv_mm.annotations.images_on_disk import oriented_size
from icconv_mm.annotations.loading import ImageFileError, find_images
from icconv_mm.errors import InputError, MissingFileError, MissingLibraryError
from icconv_mm.timeouts import call_with_timeout
from icconv_mm.versions import is_installed
from icconv_mm_runtime.errors import is_utf8
from icconv_mm_runtime.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, decode_file

HEIC_SUFFIXES = ('.heic', '.heif')
# Pixels of an image that is read reduced, and the longer side then: no network here sees more than 1333 of it.
LARGE, REDUCED = 24_000_000, 2048
_SECONDS = 30  # an address may take to answer
_LIMIT = 600  # seconds for a whole answer, which may be a video
_MOST_BYTES = 1 << 30


@dataclass
class InputImage:
    """An image that is predicted for.

    Attributes:
        path: Its file, or what a frame is called.
        image: [H, W, 3], BGR, where it is no file that the pipeline reads.
        size: Height and width of the whole image, where ``image`` is reduced.
    """

    path: Path
    image: np.ndarray | None = None
    size: tuple[int, int] | None = None


def is_video(text: str) -> bool:
    """Whether an input is a video, a stream or the number of a camera."""
    if text.isdigit():
        return not Path(text).exists()
    return text.startswith(('rtsp://', 'rtmp://')) or Path(text).suffix.lower() in VIDEO_SUFFIXES


def find_inputs(text: str, folder: str | Path) -> list[Path]:
    """The files of images that an input stands for, sorted by name.

    Args:
        text: A file, a folder, a glob pattern, or an address, which is fetched.
        folder: Where it is fetched to.

    Raises:
        MissingFileError: There is none.
        InputError: An address does not answer.
    """
    if text.startswith(('http://', 'https://')):
        return [fetch(text, Path(folder))]
    path = Path(text)
    if path.suffix.lower() in HEIC_SUFFIXES and path.is_file():
        return [path]
    if not path.is_dir():
        return find_images(text)
    others = [each for each in sorted(path.iterdir()) if each.suffix.lower() in HEIC_SUFFIXES]
    try:
        return sorted([*find_images(text), *others])
    except MissingFileError:
        if others:
            return others
        videos = [each.name for each in sorted(path.iterdir()) if each.suffix.lower() in VIDEO_SUFFIXES]
        if videos:
            raise MissingFileError(f'{text}: no images, but videos: give one of them by name: {videos[0]}') from None
        raise


def fetch(address: str, folder: Path) -> Path:
    """The file behind an address.

    Raises:
        InputError: It does not answer, or is too large.
    """
    path = folder / (Path(address.split('?')[0]).name or 'image')
    if path.suffix.lower() not in (*IMAGE_SUFFIXES, *HEIC_SUFFIXES, *VIDEO_SUFFIXES):
        path = Path(f'{path}.jpg')
    try:
        request = urllib.request.Request(address, headers={'User-Agent': 'Mozilla/5.0'})  # some refuse Python's
        content = call_with_timeout(_LIMIT, lambda: _read_url(request))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(f'{address}: cannot be fetched ({getattr(error, "reason", error)})') from None
    if len(content) > _MOST_BYTES:
        raise InputError(f'{address}: more than {_MOST_BYTES >> 20} MB')
    path.write_bytes(content)
    return path


def _read_url(request: urllib.request.Request) -> bytes:
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
        content, said = answer.read(_MOST_BYTES + 1), answer.headers.get('Content-Length', '')
    if said.isdecimal() and len(content) < min(int(said), _MOST_BYTES):  # http.client says so only if it may read on
        raise OSError(f'{len(content)} of {said} bytes came')
    return content


def read_image(path: Path, longest: int | None = None, oriented: bool = True) -> np.ndarray:
    """An image [H, W, 3], BGR, as the pipelines read it: by OpenCV, or HEIC by Pillow.

    Args:
        path: The file.
        longest: It is reduced to about so many pixels of its longer side.
        oriented: Whether as its EXIF says.

    Raises:
        ImageFileError: It is no image. MissingLibraryError: It is HEIC, and pillow-heif is not installed.
    """
    if path.suffix.lower() in HEIC_SUFFIXES:
        return _shrunk(_read_heic(path), longest)
    flags = cv2.IMREAD_COLOR if oriented else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    if longest is not None and path.suffix.lower() in ('.jpg', '.jpeg'):
        flags |= _decoded_smaller(max(_size_of(path)) // longest)
    try:
        image = decode_file(path, flags)
    except OSError as error:
        raise ImageFileError(f'{path}: cannot be read ({error.strerror})') from None
    if image is None:
        raise ImageFileError(f'{path}: cannot be read (OpenCV knows no such image)')
    return _shrunk(image, longest)


def _read_heic(path: Path) -> np.ndarray:
    if not is_installed('pillow_heif'):
        raise MissingLibraryError(f'{path}: HEIC needs pillow-heif: pip install pillow-heif')
    from pillow_heif import register_heif_opener

    register_heif_opener()
    try:
        with Image.open(path, formats=('HEIF',)) as image:
            return np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageFileError(f'{path}: cannot be read ({error})') from None


def _size_of(path: Path) -> tuple[int, int]:
    """The sides of an image, zeros of what Pillow cannot open."""
    try:
        return oriented_size(path)[0]
    except InputError:
        return 0, 0


def _decoded_smaller(step: int) -> int:
    """The flag by which OpenCV decodes a JPEG with each side a 2nd, 4th or 8th of its own, at most ``step``."""
    flags = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
    return next((flag for factor, flag in flags.items() if factor <= step), 0)


def _shrunk(image: np.ndarray, longest: int | None) -> np.ndarray:
    """An image with its sides divided by a whole number."""
    step = 1 if longest is None else max(image.shape[:2]) // longest
    if step < 2:
        return image
    size = tuple(max(1, side // step) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def is_large(path: Path) -> bool:
    """Whether an image is read reduced."""
    width, height = _size_of(path)
    return width * height > LARGE


def load_input(path: Path, oriented: bool = True) -> InputImage:
    """An image as the network gets it: most are left to the pipeline; HEIC is read here, and large ones reduced."""
    if path.suffix.lower() in HEIC_SUFFIXES:
        return InputImage(path, read_image(path))
    if not is_large(path):  # or the pipeline says what is wrong with it
        return InputImage(path)
    image = read_image(path, REDUCED, oriented)
    # OpenCV turns other formats than Pillow
    height, width = sorted(_size_of(path), reverse=image.shape[0] > image.shape[1])
    return InputImage(path, image, (height, width))


def _check_for_opencv(path: str | Path) -> None:
    """Raise InputError for the path of a video that OpenCV would crash on."""
    if not is_utf8(path):
        raise InputError(f'{path}: OpenCV opens no video whose path is not UTF-8: rename it')


class Video:
    """The frames of a video, a stream or a camera.

    Args:
        text: A file, an address, or the number of a camera.

    Attributes:
        name: What the frames are called.
        rate: Frames per second.

    Raises:
        MissingFileError: There is no such file. InputError: It cannot be opened.
    """

    def __init__(self, text: str) -> None:
        is_camera = text.isdigit()
        if not is_camera and '://' not in text and not Path(text).is_file():
            raise MissingFileError(f'no such file: {text}')
        _check_for_opencv(text)
        self.name = f'camera_{text}' if is_camera else Path(text).stem or 'stream'
        self._capture = cv2.VideoCapture(int(text) if is_camera else text)
        if not self._capture.isOpened():
            raise InputError(f'{f"camera {text}" if is_camera else text}: OpenCV cannot open it')
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or 25.0

    def __iter__(self) -> Iterator[InputImage]:
        for number in itertools.count(1):
            there, image = self._capture.read()
            if not there:
                return
            yield InputImage(Path(f'{self.name}_{number:06d}.jpg'), image)


class VideoWriter:
    """An MP4 of frames [h, w, 3], BGR, that appears with the first one.

    Raises:
        InputError: OpenCV cannot write it.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self._rate, self._writer = path, rate, None

    def add(self, frame: np.ndarray) -> None:
        """Append a frame; all are of the size of the first one."""
        if self._writer is None:
            _check_for_opencv(self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            size = frame.shape[1::-1]
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*'mp4v'), self._rate, size)
            if not self._writer.isOpened():
                raise InputError(f'{self.path}: OpenCV cannot write MP4 here')
        self._writer.write(frame)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


def temporary_folder() -> tempfile.TemporaryDirectory:
    """A folder for what is fetched."""
    return tempfile.TemporaryDirectory(prefix='icconv_mm_')
