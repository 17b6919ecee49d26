"""Reads the inputs of predictions: images in files, folders, globs and URLs; frames of videos and cameras."""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from icconv_mm.app.runs.input_image import HEIC_SUFFIXES, InputImage
from icconv_mm.datasets.image_files import opened, oriented_size
from icconv_mm.datasets.loading import ImageFileError, find_images
from icconv_mm.errors import InputError, MissingFileError, MissingLibraryError, naming
from icconv_mm.fetch import fetch
from icconv_mm.files import atomic_write
from icconv_mm.versions import is_installed
from icconv_mm_runtime.decoding import ImageDefect, decode_image, open_video
from icconv_mm_runtime.drawing import encoded, file_name
from icconv_mm_runtime.errors import is_utf8
from icconv_mm_runtime.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES

# Pixels above which an image is reduced, and its longer side then: no network here uses more than 1333 of it.
LARGE, REDUCED = 24_000_000, 2048
_LIMIT = 600  # seconds for the whole answer, which may be a video
_MOST_BYTES = 1 << 30


def is_video(text: str) -> bool:
    """Returns whether an input is a video, a stream, the number of a camera, or the URL of a video."""
    if text.isdigit():
        return not Path(text).exists()
    name = text.split('?')[0] if _is_url(text) else text
    return text.startswith(('rtsp://', 'rtmp://')) or Path(name).suffix.lower() in VIDEO_SUFFIXES


@contextmanager
def opened_inputs(text: str) -> Iterator[tuple['list[Path] | Video', bool]]:
    """Yields the image files of an input, or the video, and whether they are downloads, which are removed afterwards.

    ``text`` is as for :func:`icconv_mm.apis.infer`.

    Raises:
        MissingFileError: There is no such file, or no image.
        InputError: A URL does not answer, or a video cannot be opened.
    """
    with tempfile.TemporaryDirectory(prefix='icconv_mm_') as folder:
        if not is_video(text):
            yield find_inputs(text, folder), _is_url(text)
        else:
            yield Video(str(fetch_input(text, Path(folder))) if _is_url(text) else text), _is_url(text)


def _is_url(text: str) -> bool:
    return text.startswith(('http://', 'https://'))


def find_inputs(text: str, folder: str | Path) -> list[Path]:
    """Returns the image files of an input, sorted by name.

    Args:
        text: A file, a folder, a glob pattern, or a URL, which is downloaded.
        folder: Folder for downloads.

    Raises:
        MissingFileError: There is no image.
        InputError: A URL does not answer.
    """
    if _is_url(text):
        return [fetch_input(text, Path(folder))]
    path = Path(text)
    if path.suffix.lower() in HEIC_SUFFIXES and path.is_file():
        return [path]
    if not path.is_dir():
        return find_images(text)
    others = [path for path in sorted(path.iterdir()) if path.suffix.lower() in HEIC_SUFFIXES]
    try:
        return sorted([*find_images(text), *others])
    except MissingFileError:
        if others:
            return others
        videos = [path.name for path in sorted(path.iterdir()) if path.suffix.lower() in VIDEO_SUFFIXES]
        if videos:
            raise MissingFileError(f'{text}: no images, but videos: give one of them by name: {videos[0]}') from None
        raise


def fetch_input(address: str, folder: Path) -> Path:
    """Downloads an image or a video and returns the file.

    Raises:
        FetchError: The URL does not answer, or its file is too large.
    """
    path = folder / (Path(address.split('?')[0]).name or 'image')
    if path.suffix.lower() not in (*IMAGE_SUFFIXES, *HEIC_SUFFIXES, *VIDEO_SUFFIXES):
        path = Path(f'{path}.jpg')
    return fetch(address, path, most=_MOST_BYTES, limit=_LIMIT)


def read_image(path: Path, longest: int | None = None, oriented: bool = True) -> np.ndarray:
    """Returns an image [H, W, 3], BGR, as the pipelines read it: by OpenCV, or HEIC by Pillow.

    Args:
        path: The file.
        longest: Reduces the image so that its longer side has about this many pixels.
        oriented: Whether to apply the EXIF orientation.

    Raises:
        ImageFileError: The file is no image. MissingLibraryError: It is HEIC, and pillow-heif is not installed.
    """
    if path.suffix.lower() in HEIC_SUFFIXES:
        return shrunk(_read_heic(path), longest)
    flags = cv2.IMREAD_COLOR if oriented else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    if longest is not None and path.suffix.lower() in ('.jpg', '.jpeg'):
        step = max(_size_of(path)) // longest
        reduced = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
        flags |= next((flag for factor, flag in reduced.items() if factor <= step), 0)
    try:
        return shrunk(decode_image(path.read_bytes(), flags), longest)
    except (OSError, ImageDefect) as error:
        raise ImageFileError(f'{path}: cannot be read ({getattr(error, "strerror", error)})') from None


def write_image(image: np.ndarray, path: Path) -> None:
    """Writes an image [H, W, 3], BGR: JPEG, PNG, BMP, TIFF or WebP, as the suffix says."""
    with naming(str(path), ValueError):
        content = encoded(image, path.suffix)
    with atomic_write(path, is_flushed=False) as file:
        file.write(content)


def drawn_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns the file name of each drawn image; equal names from different folders get a number."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name = Path(file_name(path.name))
        numbered = (f'{name.stem}_{count}{name.suffix}' for count in itertools.count(2))
        names[path] = next(name for name in itertools.chain([name.name], numbered) if name not in taken)
        taken.add(names[path])
    return names


def _read_heic(path: Path) -> np.ndarray:
    if not is_installed('pillow_heif'):
        raise MissingLibraryError(f'{path}: HEIC needs pillow-heif: pip install pillow-heif')
    from pillow_heif import register_heif_opener

    register_heif_opener()
    try:
        with opened(path, ('HEIF',)) as image:
            return np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageFileError(f'{path}: cannot be read ({error})') from None


def _size_of(path: Path) -> tuple[int, int]:
    """Returns the sides of an image; zeros if Pillow cannot open it."""
    try:
        return oriented_size(path)[0]
    except InputError:
        return 0, 0


def shrunk(image: np.ndarray, longest: int | None) -> np.ndarray:
    """Returns an image with sides divided by a whole number."""
    step = 1 if longest is None else max(image.shape[:2]) // longest
    if step < 2:
        return image
    return cv2.resize(image, [max(1, side // step) for side in image.shape[1::-1]], interpolation=cv2.INTER_AREA)


def is_large(path: Path) -> bool:
    """Returns whether an image is large and therefore reduced."""
    width, height = _size_of(path)
    return width * height > LARGE


def load_input(path: Path, oriented: bool = True) -> InputImage:
    """Returns an image for the network: most are left to the pipeline; HEIC is read here, large ones are reduced."""
    if path.suffix.lower() in HEIC_SUFFIXES:
        return InputImage(path, read_image(path))
    if not is_large(path):  # or unreadable, which the pipeline reports
        return InputImage(path)
    image = read_image(path, REDUCED, oriented)
    # OpenCV applies the orientation of other formats than Pillow
    height, width = sorted(_size_of(path), reverse=image.shape[0] > image.shape[1])
    return InputImage(path, image, (height, width))


class Video:
    """Iterates over the frames of a video, a stream or a camera.

    Args:
        text: A file, a URL, or the number of a camera.

    Attributes:
        name: Name of the frames.
        rate: Frames per second.
        frames: Their number, as the file says; None of a stream.

    Raises:
        MissingFileError: The file does not exist. InputError: It cannot be opened.
    """

    def __init__(self, text: str) -> None:
        is_camera = text.isdigit()
        if not is_camera and '://' not in text and not Path(text).is_file():
            raise MissingFileError(f'no such file: {text}')
        self.name = f'camera_{text}' if is_camera else Path(text).stem or 'stream'
        with naming(text, ImageDefect):
            self._capture = open_video(int(text) if is_camera else text)
        if not self._capture.isOpened():
            raise InputError(f'{f"camera {text}" if is_camera else text}: OpenCV cannot open it')
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frames = frames if frames > 0 else None

    def __iter__(self) -> Iterator[InputImage]:
        for number in itertools.count(1):
            there, image = self._capture.read()
            if not there:
                return
            yield InputImage(Path(f'{self.name}_{number:06d}.jpg'), image)


class VideoWriter:
    """Writes frames [h, w, 3], BGR, to an MP4, which is created with the first one.

    Raises:
        InputError: OpenCV cannot write the file.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self._rate, self._writer, self._count = path, rate, None, 0

    def add(self, frame: np.ndarray) -> None:
        """Appends a frame; all have the size of the first one."""
        if self._writer is None:
            if not is_utf8(self.path):  # OpenCV would crash
                raise InputError(f'{self.path}: OpenCV opens no video whose path is not UTF-8: rename it')
            self.path.parent.mkdir(parents=True, exist_ok=True)
            size = frame.shape[1::-1]
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*'mp4v'), self._rate, size)
            if not self._writer.isOpened():
                raise InputError(f'{self.path}: OpenCV cannot write MP4 here')
        self._writer.write(frame)
        self._count += 1

    def close(self) -> None:
        """Closes the file, and reads it back: OpenCV says nothing of a full disk."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        there = open_video(self.path).get(cv2.CAP_PROP_FRAME_COUNT) if self.path.stat().st_size else 0
        if there < self._count:
            raise InputError(f'{self.path.name}: has {there:.0f} of {self._count} frames; is the disk full?')
