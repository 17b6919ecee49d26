"""Draws an image with its annotations or predictions: legible at any size, at most 4096 pixels per side."""

import colorsys
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from icconv_mm_runtime import limits
from icconv_mm_runtime.images import IMAGE_SUFFIXES
from icconv_mm_runtime.thresholds import KEYPOINT_SCORE, reaches, shown

LONGEST = 4096  # largest side of a drawn image in pixels: a larger one helps the network, not the reader
_FAR = 1 << 20  # limit of drawn coordinates in pixels
_GOLDEN = 0.61803398875  # step on the circle of hues from one colour to the next
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MASK, _MAP, _IGNORED = 0.45, 0.5, 0.8  # opacity of masks, segmentation maps and their ignored pixels
_DARK = (60, 60, 60)
_LEAST = 0.004  # share of the image: smaller regions of a segmentation map are not named


@dataclass
class DrawnObject:
    """A drawn object, in pixels of the image.

    Attributes:
        color: R, G and B, for example :func:`color_of` its class.
        text: Text beside it.
        box: x1, y1, x2, y2.
        mask: Boolean [H, W].
        keypoints: x, y of each, [K, 2]; ``shown`` selects the drawn ones.
        skeleton: Pairs of keypoints that a line joins.
        keypoint_names: Texts beside the keypoints.
        is_hatched: Whether its mask, else its box, is hatched.
    """

    color: Sequence[int]
    text: str = ''
    box: Sequence[float] | None = None
    mask: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    shown: np.ndarray | None = None
    skeleton: Sequence[tuple[int, int]] = ()
    keypoint_names: Sequence[str] = ()
    is_hatched: bool = False


@dataclass
class Drawing:
    """Everything to draw on an image.

    Attributes:
        objects: Objects, in pixels of the image.
        seg_map: Class of each pixel, of any size; pixels of 255 are not coloured, or have ``ignored_color``.
        names: Class names of the segmentation map; ``colors``, (R, G, B) of each, by default :func:`color_of`.
        title: Text in the corner.
        shape: Height and width of the image that the objects' pixels refer to; by default the one drawn on.
        ignored_color: R, G and B.
    """

    objects: list[DrawnObject] = field(default_factory=list)
    seg_map: np.ndarray | None = None
    names: Sequence[str] = ()
    colors: Sequence[Sequence[int]] = ()
    title: str = ''
    shape: tuple[int, int] | None = None
    ignored_color: tuple[int, int, int] | None = None


def color_of(label: int) -> tuple[int, int, int]:
    """Returns a class's colour (R, G, B): neighbouring labels differ widely in hue, more distant ones in lightness."""
    lightness = (0.5, 0.36, 0.66)[(label // 8) % 3]
    return tuple(round(255 * value) for value in colorsys.hls_to_rgb((0.02 + label * _GOLDEN) % 1, lightness, 0.9))


def _bgr(color: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in color[::-1])


def palette(count: int) -> list[tuple[int, int, int]]:
    """Returns the colours of ``count`` classes."""
    return [color_of(label) for label in range(count)]


def reduced(image: np.ndarray, longest: int = LONGEST) -> tuple[np.ndarray, float]:
    """Returns a copy of an image whose sides are at most ``longest`` pixels, and its scale."""
    scale = min(1.0, longest / max(image.shape[:2]))
    if scale == 1.0:
        return image.copy(), scale
    size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def draw(image: np.ndarray, drawing: Drawing, longest: int = LONGEST) -> np.ndarray:
    """Returns a copy of an image with, in this order, regions, masks, boxes, skeletons and text drawn on it.

    Args:
        image: [H, W, 3], uint8, BGR.
        drawing: What to draw.
        longest: Largest side of the result in pixels.

    Returns:
        [h, w, 3], uint8, BGR, reduced in proportion.
    """
    canvas, scale = reduced(image, longest)
    height, width = canvas.shape[:2]
    scale = width / drawing.shape[1] if drawing.shape else scale
    unit = max(1.0, (height * width) ** 0.5 / 600)  # one pixel wide at 600 x 600
    words: list[tuple[str, float, float, tuple[int, int, int]]] = []
    if drawing.seg_map is not None:
        small = cv2.resize(drawing.seg_map.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        words += _draw_map(canvas, small, drawing)
    for item in drawing.objects:
        if item.mask is not None:
            _draw_mask(canvas, item, unit, filled=drawing.seg_map is None)
    for item in drawing.objects:
        if item.is_hatched:
            _hatch(canvas, item, scale, unit)
        if item.box is not None:
            color = _bgr(item.color)
            x1, y1, x2, y2 = _pixels(item.box, scale)
            cv2.rectangle(canvas, (x1, y1), (x2, y2), color, max(1, round(1.5 * unit)), cv2.LINE_AA)
            if item.text:
                words.append((item.text, x1, y1, color))
    for item in drawing.objects:
        if item.keypoints is not None:
            _draw_skeleton(canvas, item, scale, unit)
            points = zip(item.keypoint_names, _pixels(item.keypoints, scale), _shown(item).tolist())
            words += [(name, *point, _DARK) for name, point, is_shown in points if is_shown]
    for text, x, y, color in words:
        _write(canvas, text, x, y, color, unit)
    if drawing.title:
        _write(canvas, drawing.title, 0, height, (30, 30, 30), unit)
    return canvas


def _pixels(positions: Any, scale: float) -> list:
    """Returns canvas positions as whole pixels, clipped, as OpenCV refuses some that are far outside."""
    return np.clip(np.round(np.asarray(positions, np.float64) * scale), -_FAR, _FAR).astype(int).tolist()


def _draw_map(canvas: np.ndarray, labels: np.ndarray, drawing: Drawing) -> list[tuple]:
    """Colours the regions; returns the name of each class and the centre of its largest region."""
    names, colors = drawing.names, drawing.colors
    table = np.array([_bgr(colors[i] if i < len(colors) else color_of(i)) for i in range(256)], dtype=np.uint8)
    is_shown = labels != 255
    _blend(canvas, table[labels], is_shown, _MAP)
    if drawing.ignored_color is not None:
        _blend(canvas, np.full_like(canvas, _bgr(drawing.ignored_color)), ~is_shown, _IGNORED)
    words = []
    for label in np.unique(labels[is_shown]).tolist():
        if label >= len(names):
            continue
        count, _, stats, centers = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8))
        if count > 1:
            largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
            if stats[largest, cv2.CC_STAT_AREA] >= _LEAST * labels.size:
                words.append((names[label], *centers[largest], tuple(table[label].tolist())))
    return words


def _draw_mask(canvas: np.ndarray, item: DrawnObject, unit: float, filled: bool) -> None:
    """Draws a mask in its colour, or as a white contour on a segmentation map, which would hide it."""
    height, width = canvas.shape[:2]
    mask = cv2.resize(item.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    color = _bgr(item.color) if filled else (255, 255, 255)
    if filled:
        x, y, w, h = cv2.boundingRect(mask)
        part = canvas[y : y + h, x : x + w]
        _blend(part, np.full_like(part, color), mask[y : y + h, x : x + w] > 0, _MASK)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, color, max(1, round(unit if filled else 1.5 * unit)), cv2.LINE_AA)


def _hatch(canvas: np.ndarray, item: DrawnObject, scale: float, unit: float) -> None:
    """Draws diagonal lines over an object's mask, or over its box without one."""
    height, width = canvas.shape[:2]
    if item.mask is not None:
        where = cv2.resize(item.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    else:
        x1, y1, x2, y2 = _pixels(item.box, scale)
        where = np.zeros((height, width), bool)
        where[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    rows, columns = np.ogrid[:height, :width]
    lines = (rows + columns) % max(4, round(8 * unit)) < max(2, round(2 * unit))
    _blend(canvas, np.full_like(canvas, _bgr(item.color)), where & lines, 1)


def _blend(canvas: np.ndarray, colors: np.ndarray, where: np.ndarray, share: float) -> None:
    """Blends colours over the pixels in ``where``, as bytes: floats of a large image would fill the memory."""
    if canvas.size:
        np.copyto(canvas, cv2.addWeighted(canvas, 1 - share, colors, share, 0), where=where[..., None])


def _draw_skeleton(canvas: np.ndarray, item: DrawnObject, scale: float, unit: float) -> None:
    """Draws the shown keypoints, and the lines between two of them."""
    points = np.array(_pixels(item.keypoints, scale))
    shown, color = _shown(item), _bgr(item.color)
    for a, b in item.skeleton:
        if shown[a] and shown[b]:
            cv2.line(canvas, points[a].tolist(), points[b].tolist(), color, round(2 * unit), cv2.LINE_AA)
    for number in np.flatnonzero(shown):
        center = points[number].tolist()
        cv2.circle(canvas, center, round(3.2 * unit), (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(canvas, center, round(2.4 * unit), _bgr(color_of(number)), -1, cv2.LINE_AA)


def _shown(item: DrawnObject) -> np.ndarray:
    return np.ones(len(item.keypoints), bool) if item.shown is None else np.asarray(item.shown, bool)


def _write(canvas: np.ndarray, text: str, x: float, y: float, color: tuple, unit: float) -> None:
    """Draws text on a ground of its colour, above a point, moved so that nothing is cut."""
    height, width = canvas.shape[:2]
    size, thick = 0.42 * unit, max(1, round(unit))
    text = text.encode('ascii', 'replace').decode()  # the characters of OpenCV's font
    (w, h), base = cv2.getTextSize(text, _FONT, size, thick)
    if w > width - 4:  # a narrow image
        size *= max(width - 4, 1) / w
        (w, h), base = cv2.getTextSize(text, _FONT, size, thick)
    pad = max(1, round(1.5 * unit))
    left = int(np.clip(x, 0, max(0, width - w - 2 * pad)))
    bottom = int(np.clip(y, h + base + 2 * pad, height))
    cv2.rectangle(canvas, (left, bottom - h - base - 2 * pad), (left + w + 2 * pad, bottom), color, -1)
    light = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2]
    ink = (0, 0, 0) if light > 130 else (255, 255, 255)
    cv2.putText(canvas, text, (left + pad, bottom - base - pad), _FONT, size, ink, thick, cv2.LINE_AA)


def file_name(name: str) -> str:
    """Returns the file name of a drawn image: the image's own, shortened, with a suffix that can be written."""
    stem, suffix = Path(name).stem, Path(name).suffix
    if suffix.lower() not in IMAGE_SUFFIXES:
        stem, suffix = name, '.jpg'
    room = limits.MAX_FILE_NAME - len(suffix)
    letters = os.fsencode(stem)
    return (stem if len(letters) <= room else letters[:room].decode(errors='ignore') or 'image') + suffix


def encoded(image: np.ndarray, suffix: str) -> bytes:
    """Encodes an image [h, w, 3], BGR, as the content of an image file.

    Raises:
        ValueError: The suffix is not one of :data:`IMAGE_SUFFIXES`, or OpenCV cannot encode the image.
    """
    known_suffix = next((candidate for candidate in IMAGE_SUFFIXES if candidate == suffix.lower()), None)
    is_encoded, buffer = cv2.imencode(known_suffix, image) if known_suffix else (False, None)
    if not is_encoded:
        raise ValueError(f'no image is written as {suffix!r}, but as {", ".join(IMAGE_SUFFIXES)}')
    return buffer.tobytes()


def tiles(images: Sequence[np.ndarray], side: int = 480, columns: int = 4) -> np.ndarray:
    """Arranges images [h, w, 3] in a grid, each in a square of ``side`` pixels."""
    columns = min(columns, max(len(images), 1))
    rows = -(-len(images) // columns)
    page = np.full((rows * side, columns * side, 3), 245, dtype=np.uint8)
    for number, sample in enumerate(images):
        scale = (side - 8) / max(sample.shape[:2])
        w, h = (max(1, round(scale * length)) for length in sample.shape[1::-1])
        small = cv2.resize(sample, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        top, left = (number // columns) * side + (side - h) // 2, (number % columns) * side + (side - w) // 2
        page[top : top + h, left : left + w] = small
    return page


# --- predictions


def drawing_of(task: Mapping[str, Any], arrays: Mapping[str, np.ndarray], score_thr: float | None = None) -> Drawing:
    """Converts a task's predictions, as :func:`icconv_mm_runtime.outputs.decode` returns them; the best come on top.

    Args:
        task: Its ``kind`` and ``classes``, and optionally ``palette`` (R, G, B), ``skeleton`` and ``thresholds``.
        arrays: Arrays by name; without ``scores``, as in annotations, everything is drawn. ``tracks`` [n] numbers
            objects of a video; 0 for none.
        score_thr: Lowest score that is drawn; by default that of each class (:mod:`icconv_mm_runtime.thresholds`).
    """
    classes, colors, scores = task['classes'], task.get('palette') or (), arrays.get('scores')

    def words(label: int, index: int) -> str:
        name = classes[label] if label < len(classes) else str(label)
        if 'tracks' in arrays and arrays['tracks'][index]:
            name += f' #{arrays["tracks"][index]}'
        return name if scores is None else f'{name} {scores[index]:.2f}'

    drawing = Drawing()
    if 'seg_map' in arrays:
        drawing.seg_map, drawing.names, drawing.colors = arrays['seg_map'], classes, colors
    if task['kind'] == 'classification':
        labels = arrays['labels'] if scores is None else [scores.argmax()]
        drawing.title = ', '.join(words(int(label), label) for label in labels)
        return drawing
    order = range(len(arrays.get('keypoints', arrays.get('boxes', ()))))
    for i in order if scores is None else shown(task, arrays, score_thr)[::-1].tolist():
        if 'keypoints' in arrays:
            points, seen = arrays['keypoints'][i], reaches(arrays['keypoint_scores'][i], KEYPOINT_SCORE)
            person = DrawnObject(color_of(i), keypoints=points, shown=seen, skeleton=task.get('skeleton') or ())
            drawing.objects.append(person)
        else:
            label = int(arrays['labels'][i])
            color = colors[label] if label < len(colors) else color_of(label)
            mask = arrays['masks'][i] if 'masks' in arrays else None
            drawing.objects.append(DrawnObject(color, words(label, i), arrays['boxes'][i], mask))
    return drawing


def joined(parts: Iterable[Drawing]) -> Drawing:
    """Joins the predictions of several tasks for one image: at most one segmentation map and one title."""
    whole = Drawing()
    for part in parts:
        whole.objects += part.objects
        if part.seg_map is not None:
            whole.seg_map, whole.names, whole.colors = part.seg_map, part.names, part.colors
        whole.title = whole.title or part.title
    return whole
