"""Pictures with what was found in them."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from icconv_mm_runtime.results import Found

_KEYPOINT_SCORE = 0.1  # from which a keypoint is drawn


def draw(
    image: np.ndarray, tasks: Mapping[str, Mapping[str, Any]], found: Mapping[str, Found], score_thr: float
) -> np.ndarray:
    """A copy of ``[H, W, 3]``, BGR, with what tasks found that scores enough; label maps first, poses last."""
    canvas = image.copy()
    order = ('semantic', 'boxes', 'instances', 'pose', 'keypoints', 'classification')
    for name in sorted(found, key=lambda name: order.index(tasks[name]['kind'])):
        _PAINTERS[tasks[name]['kind']](canvas, tasks[name], found[name], score_thr)
    return canvas


def _color(task: Mapping[str, Any], label: int) -> tuple[int, int, int]:
    palette = task.get('palette') or []
    if label < len(palette):
        return tuple(int(value) for value in palette[label][::-1])  # a palette is RGB
    hue = np.uint8([[[label * 67 % 180, 200, 230]]])
    return tuple(int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])


def _name(task: Mapping[str, Any], label: int) -> str:
    return task['classes'][label] if label < len(task['classes']) else str(label)


def _text(canvas: np.ndarray, text: str, place: tuple[int, int], color: tuple[int, int, int]) -> None:
    size = max(0.35, min(canvas.shape[:2]) / 1500)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    x, y = max(0, min(place[0], canvas.shape[1] - width)), max(height + below, place[1])
    cv2.rectangle(canvas, (x, y - height - below), (x + width, y), color, -1)
    ink = (0, 0, 0) if sum(color) > 380 else (255, 255, 255)
    cv2.putText(canvas, text, (x, y - below // 2), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)


def _blend(canvas: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    canvas[mask] = canvas[mask] * 0.55 + np.array(color) * 0.45


def _semantic(canvas: np.ndarray, task: Mapping[str, Any], found: Found, score_thr: float) -> None:
    for label in np.unique(found['label_map']):
        _blend(canvas, found['label_map'] == label, _color(task, int(label)))


def _boxes(canvas: np.ndarray, task: Mapping[str, Any], found: Found, score_thr: float) -> None:
    for i in np.flatnonzero(found['scores'] >= score_thr)[::-1]:  # the best on top
        label = int(found['labels'][i])
        color = _color(task, label)
        if 'masks' in found:
            _blend(canvas, found['masks'][i], color)
        x1, y1, x2, y2 = (round(float(value)) for value in found['boxes'][i])
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, 2)
        _text(canvas, f'{_name(task, label)} {found["scores"][i]:.2f}', (x1, y1), color)


def _poses(canvas: np.ndarray, task: Mapping[str, Any], found: Found, score_thr: float) -> None:
    radius = max(2, min(canvas.shape[:2]) // 200)
    for i in np.flatnonzero(found['scores'] >= score_thr):
        points, seen = found['keypoints'][i].round().astype(int), found['keypoint_scores'][i] >= _KEYPOINT_SCORE
        for start, end in task.get('skeleton') or ():
            if seen[start] and seen[end]:
                cv2.line(canvas, tuple(points[start].tolist()), tuple(points[end].tolist()), (90, 220, 90), radius)
        for k in np.flatnonzero(seen):
            color = _color({'palette': task.get('keypoint_colors')}, int(k))
            cv2.circle(canvas, tuple(points[k].tolist()), radius + 1, color, -1, cv2.LINE_AA)


def _classes(canvas: np.ndarray, task: Mapping[str, Any], found: Found, score_thr: float) -> None:
    label = int(found['scores'].argmax())
    _text(canvas, f'{_name(task, label)} {found["scores"][label]:.2f}', (0, 0), _color(task, label))


_PAINTERS = {
    'semantic': _semantic,
    'boxes': _boxes,
    'instances': _boxes,
    'pose': _poses,
    'keypoints': _poses,
    'classification': _classes,
}
