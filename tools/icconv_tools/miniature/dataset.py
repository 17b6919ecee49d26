"""Drawing the miniature dataset: its options, its files and their COCO annotations."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from icconv_mm.errors import InputError, naming
from icconv_tools.miniature.people import KEYPOINTS, SKELETON
from icconv_tools.miniature.scenes import CLASSES, Scene, random_scene

PALETTE = ((220, 20, 60), (0, 114, 189), (237, 177, 32), (126, 47, 142), (119, 172, 48), (77, 190, 238))  # RGB
SEMANTIC_PALETTE = ((90, 90, 90), *PALETTE)
SPLITS = ('train', 'val')
STAMP = 'miniature.json'
_JPEG_QUALITY = 95
_LICENSES = [{'id': 1, 'name': 'CC0 1.0', 'url': 'https://creativecommons.org/publicdomain/zero/1.0/'}]
Progress = Callable[[Sequence[tuple[str, int]]], Iterable[tuple[str, int]]]  # shows how far a sequence is worked on


class OccupiedFolderError(InputError, FileExistsError):
    """A folder that holds something other than a miniature dataset."""


@dataclass(frozen=True)
class MiniatureOptions:
    """What to draw."""

    train: int = 800  # images
    val: int = 80
    size: int = 128  # their width and height in pixels, 64 or more
    seed: int = 0  # chooses the scenes

    # what another drawn set overrides, beside __post_init__ and draw
    splits: ClassVar[tuple[str, ...]] = SPLITS
    classes: ClassVar[tuple[str, ...]] = CLASSES  # the first one has keypoints
    version: ClassVar[int] = 21  # of the drawing: a set drawn by another one is drawn anew
    crop: ClassVar[int] = 0  # side in pixels of an image of each object for classification; none if 0
    title: ClassVar[str] = 'miniature dataset'

    def __post_init__(self) -> None:
        self._require(train=1, val=1, size=64, seed=0)

    def _require(self, **least: int) -> None:
        for name, number in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < number:
                raise InputError(f'{self.title}: {name} must be an integer >= {number}, got {value!r}')

    def draw(self, rng: np.random.Generator) -> Scene:
        """One scene."""
        return random_scene(rng, self.size)


def is_drawn(root: str | Path, options: MiniatureOptions | None = None) -> bool:
    """Whether ``root`` holds a complete miniature dataset (of these ``options``, if given)."""
    try:
        stamp = json.loads((Path(root) / STAMP).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(stamp, dict) and (options is None or stamp == _stamp(options))


def ensure_miniature(root: str | Path, options: MiniatureOptions | None = None, progress: Progress = iter) -> bool:
    """Draw the dataset into ``root`` unless it is there already.

    It is drawn beside ``root`` and moved there when it is complete, so an interrupted call leaves no half of it. A
    dataset of other options is replaced; a folder that is no miniature dataset is never touched. Processes that call
    this at the same time wait for each other.

    Args:
        root: The dataset's folder.
        options: Options of the drawing; the defaults if omitted.
        progress: Wraps the sequence of ``(split, index)`` pairs while they are drawn, as ``rich.progress.track`` does.

    Returns:
        Whether it was drawn now.

    Raises:
        OccupiedFolderError: If ``root`` is a file or holds something other than a miniature dataset.
    """
    root, options = Path(root).absolute(), options or MiniatureOptions()
    if is_drawn(root, options):
        return False
    if root.exists() and not is_drawn(root) and (not root.is_dir() or any(root.iterdir())):
        raise OccupiedFolderError(
            f'{root} exists and is not a miniature dataset (no {STAMP} in it): choose another folder'
        )
    with naming(str(root), OSError), _locked(root.parent):
        if is_drawn(root, options):  # by the process that this one waited for
            return False
        partial = root.with_name(f'.{root.name}.partial')
        shutil.rmtree(partial, ignore_errors=True)
        try:
            _draw(partial, options, progress)
            if root.exists():
                (root / STAMP).unlink(missing_ok=True)  # from here on it does not pass for complete
                shutil.rmtree(root)
            partial.rename(root)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return True


def scene(options: MiniatureOptions, split: str, index: int) -> Scene:
    """The scene behind image ``index`` (from 0) of a split."""
    return options.draw(np.random.default_rng([options.seed, options.splits.index(split), index]))


def _stamp(options: MiniatureOptions) -> dict:
    return json.loads(json.dumps({'version': options.version, **asdict(options)}))  # tuples are lists there


@contextmanager
def _locked(folder: Path):
    """Hold an exclusive lock on a folder, made if need be; the kernel releases it if the process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _draw(root: Path, options: MiniatureOptions, progress: Progress) -> None:
    splits = options.splits
    for folder in ('annotations', *splits, *(f'semantic/{name}' for name in splits)):
        (root / folder).mkdir(parents=True)
    for split, label in product(splits, options.classes if options.crop else ()):
        (root / 'crops' / split / label).mkdir(parents=True)
    records = {name: [] for name in splits}
    images = [(name, index) for name in splits for index in range(getattr(options, name))]
    for split, index in progress(images):
        drawn = scene(options, split, index)
        name = f'{index + 1:06d}'
        _write_image(root / split / f'{name}.jpg', drawn.image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        _write_image(root / 'semantic' / split / f'{name}.png', drawn.labels(), [])
        records[split].append(_annotations(drawn))
        if options.crop:
            _write_crops(root / 'crops' / split, name, drawn, records[split][-1], options)
    for split in splits:
        for kind, document in _documents(records[split], options).items():
            (root / 'annotations' / f'{kind}_{split}.json').write_text(json.dumps(document, separators=(',', ':')))
    (root / STAMP).write_text(json.dumps(_stamp(options)))


def _write_image(path: Path, image: np.ndarray, parameters: list[int]) -> None:
    if not cv2.imwrite(str(path), image, parameters):
        raise InputError(f'cannot write {path}')


def _write_crops(folder: Path, name: str, drawn: Scene, annotations: list[dict], options: MiniatureOptions) -> None:
    """``folder/CLASS/NAME_ITEM.jpg``: a square around the middle of each object's box, flipped beyond the image."""
    side = options.crop
    padded = cv2.copyMakeBorder(drawn.image, side, side, side, side, cv2.BORDER_REFLECT_101)
    for index, (item, annotation) in enumerate(zip(drawn.items, annotations)):
        x, y, width, height = annotation['bbox']
        left, top = round(x + width / 2 + side / 2), round(y + height / 2 + side / 2)
        path = folder / options.classes[item.label] / f'{name}_{index:02d}.jpg'
        _write_image(path, padded[top : top + side, left : left + side], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])


# --- COCO documents


def _documents(rows: list[list[dict]], options: MiniatureOptions) -> dict[str, dict]:
    """The two COCO documents of a split from the annotations of its images; ids count from 1."""
    images = [
        {'id': i, 'file_name': f'{i:06d}.jpg', 'height': options.size, 'width': options.size, 'license': 1}
        for i in range(1, len(rows) + 1)
    ]
    flat = [{**one, 'image_id': i} for i, row in enumerate(rows, 1) for one in row]
    annotations = [{'id': i, **one} for i, one in enumerate(flat, 1)]
    classes = options.classes
    person = {'id': 1, 'name': classes[0], 'supercategory': classes[0]}
    categories = [person, *({'id': i, 'name': name, 'supercategory': 'shape'} for i, name in enumerate(classes[1:], 2))]
    about = {'description': f'icconv_mm {options.title}', 'version': str(options.version), 'options': asdict(options)}
    shared = {'info': about, 'licenses': _LICENSES, 'images': images}
    only_boxes = [{k: v for k, v in annotation.items() if 'keypoints' not in k} for annotation in annotations]
    return {
        'instances': {**shared, 'annotations': only_boxes, 'categories': categories},
        'person_keypoints': {
            **shared,
            'annotations': [annotation for annotation in annotations if annotation['category_id'] == 1],
            'categories': [{**person, 'keypoints': list(KEYPOINTS), 'skeleton': [list(pair) for pair in SKELETON]}],
        },
    }


def _annotations(drawn: Scene) -> list[dict]:
    """The COCO annotations of a scene's items, without ids."""
    annotations = []
    for index, item in enumerate(drawn.items):
        mask = drawn.visible(index)
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        annotation = {
            'category_id': item.label + 1,
            'bbox': [x, y, width, height],
            'area': int(mask.sum()),
            'iscrowd': int(item.crowd),
            'segmentation': rle(mask) if item.crowd else _segmentation(mask),
            **item.planted,
        }
        if item.label == 0:
            points = np.zeros((17, 3)) if item.keypoints is None else _labelled(item.keypoints, mask)
            annotation['keypoints'] = [round(float(v), 1) for v in points.ravel()]
            annotation['num_keypoints'] = int(np.count_nonzero(points[:, 2]))
        annotations.append(annotation)
    return annotations


def _labelled(keypoints: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """COCO's ``[17, 3]`` (x, y, v): v 0 outside the image, 1 behind another object, 2 visible."""
    pixels, last = np.rint(keypoints).astype(int), np.array(mask.shape[::-1]) - 1
    inside = ((pixels >= 0) & (pixels <= last)).all(1)
    x, y = np.clip(pixels, 0, last).T
    return np.column_stack([np.clip(keypoints, 0, last), 1 + mask[y, x]]) * inside[:, None]


def _segmentation(mask: np.ndarray, tolerance: float = 0.4, enlarge: int = 4) -> list | dict:
    """COCO polygons of a mask ``[H, W]`` (x, y in pixels), or RLE if it has holes, which polygons cannot have.

    The polygon is traced on the enlarged mask, so that it runs along the pixels' edges and not through their centres.
    """
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    cut = mask[y : y + height, x : x + width].astype(np.uint8)
    large = cv2.resize(cut, None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_NEAREST)
    contours, hierarchy = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (hierarchy[0, :, 3] >= 0).any():
        return rle(mask)
    segmentations = (cv2.approxPolyDP(contour, tolerance * enlarge, True)[:, 0] for contour in contours)
    corners = [(points + 0.5) / enlarge + (x, y) for points in segmentations if len(points) >= 3]
    return [np.round(points, 2).ravel().tolist() for points in corners] or rle(mask)


def rle(mask: np.ndarray) -> dict:
    """COCO's uncompressed RLE of a mask ``[H, W]``: column by column, the first run being background."""
    pixels = mask.ravel(order='F')
    changes = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff([0, *changes, pixels.size])
    return {'size': list(mask.shape), 'counts': [*([0] if pixels[0] else []), *runs.tolist()]}
