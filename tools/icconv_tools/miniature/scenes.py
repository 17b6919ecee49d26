"""Random scenes for the miniature dataset: textured backgrounds, objects of six shapes, and who hides whom.

The colour of everything comes from one random source, in two tones that cover about half of it each: what tells an
object's class is its contour and how the tones lie, never a colour or a histogram.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np

from icconv_tools.miniature.people import SUBPIXEL_BITS, Pose, draw_person, fixed, random_pose

CLASSES = ('person', 'ball', 'box', 'cone', 'star', 'ring')
MIN_AREA = 36  # pixels; what shows less is not recognisable
_MIN_VISIBLE = 0.4  # of an object's area that later objects must leave in view
_MIN_CONTRAST = 60  # mean absolute difference, of 255, between an object and what it covers
DARK, LIGHT = np.float32(0.55), np.float32(1.2)  # the two tones of everything: how they lie differs by class


@dataclass
class Item:
    """One annotated object."""

    label: int  # index into CLASSES
    area: int  # pixels inside the image before anything was put in front
    keypoints: np.ndarray | None = None  # [17, 2], (x, y) in pixels, of people only
    crowd: bool = False  # a group of people too small to be told apart
    planted: dict = field(default_factory=dict)  # what else its annotation says


@dataclass
class Scene:
    """An image and what it shows."""

    image: np.ndarray  # [H, W, 3] (BGR, uint8)
    owner: np.ndarray  # [H, W], what each pixel shows: 0 background, i + 1 item i
    items: list[Item] = field(default_factory=list)  # from back to front

    def visible(self, index: int) -> np.ndarray:
        """Mask ``[H, W]`` of what shows of item ``index``."""
        return self.owner == index + 1

    def labels(self) -> np.ndarray:
        """Segmentation map ``[H, W]``, uint8: 0 background, ``i + 1`` class i."""
        lookup = np.array([0, *(item.label + 1 for item in self.items)], np.uint8)
        return lookup[self.owner]


def random_scene(rng: np.random.Generator, size: int) -> Scene:
    """A scene of ``size`` x ``size`` pixels.

    About one in twenty is empty and one in six has no person. The scale of a scene is drawn first: near ones hold few
    large objects, far ones many small ones.
    """
    scene = Scene(background(rng, size), np.zeros((size, size), np.int32))
    kind = rng.random()
    if kind < 0.05:
        return scene
    scale = np.exp(rng.uniform(np.log(0.5), np.log(1.4)))
    people = 0 if kind < 0.2 else rng.integers(1, 3 + (scale < 0.85))
    objects = rng.integers(2, 5) + (scale < 0.85)
    if rng.random() < 0.05:
        _add_crowd(rng, scene)
    for is_object in rng.permutation([0] * people + [1] * objects):
        add = _add_object if is_object else _add_person
        for _ in range(6):  # a refused position is tried elsewhere, then given up
            if add(rng, scene, scale):
                break
    return scene


# --- colour and texture


def random_color(rng: np.random.Generator) -> np.ndarray:
    color = rng.uniform(15, 240, 3).astype(np.float32)
    return 0.75 * color + 0.25 * color.mean()


def _noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise of ``shape`` (height, width) in 0..1 with about ``cells`` bumps along a side."""
    grid = rng.random((cells + 1, cells + 1), np.float32)
    return np.clip(cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)


def texture(rng: np.random.Generator, shape: tuple[int, int], contrast: float) -> np.ndarray:
    """An image of ``shape`` (height, width), float32 ``[h, w, 3]``.

    A base colour with two others, which a gradient, stripes, checks or noise, and patches mix in; ``contrast`` in
    0..1 says how far these may be from the base.
    """
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.1, 0.5) * max(shape)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = rng.integers(4)
    if kind == 0:
        weight = (along - along.min()) / max(np.ptp(along), 1)
    elif kind == 1:
        weight = np.sin(2 * np.pi * along / period) > 0
    elif kind == 2:
        weight = (np.floor(along / period) + np.floor(across / period)) % 2
    else:
        weight = _noise(rng, shape, int(rng.integers(2, 16)))
    base = random_color(rng)
    mixed, patches = (base + contrast * (random_color(rng) - base) for _ in range(2))
    textured = base + weight.astype(np.float32)[..., None] * (mixed - base)
    textured[_noise(rng, shape, int(rng.integers(2, 6))) > rng.uniform(0.55, 1.3)] = patches
    return textured


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A textured ground ``[size, size, 3]``, uint8, with strokes on it, which belong to no class."""
    image = texture(rng, (size, size), contrast=0.12)
    for _ in range(rng.integers(0, 4)):
        a, b = rng.integers(0, size, (2, 2)).tolist()
        cv2.line(image, a, b, random_color(rng).tolist(), int(rng.integers(1, 3)))
    return np.clip(grain(rng, image), 0, 255).astype(np.uint8)


def grain(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """``image`` with a video's noise, float32."""
    return image + rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0, 3))


# --- placing


def _hides_an_item(scene: Scene, mask: np.ndarray) -> bool:
    """Whether ``mask`` would leave an earlier item with too little in view."""
    owners, covered = np.unique(scene.owner[mask], return_counts=True)
    return any(
        np.count_nonzero(scene.owner == owner) - lost < max(MIN_AREA, _MIN_VISIBLE * scene.items[owner - 1].area)
        for owner, lost in zip(owners, covered)
        if owner
    )


def place(scene: Scene, alpha: np.ndarray, paint: Callable[[tuple], np.ndarray], label: int, **item) -> bool:
    """Put an :class:`Item` in front of the scene; false, and nothing changed, if it is too small or hides another.

    ``alpha`` ``[H, W]``, uint8, is its coverage. ``paint`` gives its colours ``[h, w, 3]`` in a window (a pair of
    slices) of the image, and is asked again while they vanish in the background.
    """
    mask = alpha > 127
    area = np.count_nonzero(mask)
    if area < MIN_AREA or _hides_an_item(scene, mask):
        return False
    left, top, width, height = cv2.boundingRect(alpha)
    window = np.s_[top : top + height, left : left + width]
    behind = scene.image[window].astype(np.float32)
    for _ in range(8):
        colors = np.clip(paint(window), 0, 255)
        if np.abs(colors - behind)[mask[window]].mean() >= _MIN_CONTRAST:
            break
    weight = alpha[window][..., None] / np.float32(255)
    scene.image[window] = np.rint(behind + weight * (colors - behind)).astype(np.uint8)
    scene.items.append(Item(label, area, **item))
    scene.owner[mask] = len(scene.items)
    return True


def _add_object(rng: np.random.Generator, scene: Scene, scale: float) -> bool:
    size = len(scene.owner)
    label = int(rng.integers(1, len(CLASSES)))
    radius = np.clip(size * scale * np.exp(rng.normal(np.log(0.14), 0.35)), 0.05 * size, 0.3 * size)
    center = rng.uniform(0.05, 0.95, 2) * size
    tilt = np.deg2rad(rng.uniform(-MAX_TILT, MAX_TILT))
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    contours = [fixed(points @ turn * radius + center) for points in POLYGONS[CLASSES[label]](rng)]
    alpha = np.zeros((size, size), np.uint8)
    cv2.fillPoly(alpha, contours, 255, cv2.LINE_AA, SUBPIXEL_BITS)
    period = size * rng.uniform(0.055, 0.08)
    edge = np.zeros((size, size), np.uint8)
    cv2.polylines(edge, contours, True, 255, max(1, round(0.05 * radius)), cv2.LINE_AA, SUBPIXEL_BITS)

    def paint(window):
        y, x = np.mgrid[window].astype(np.float32)
        local = ((np.stack([x, y], axis=-1) - center) / period @ turn.T).astype(np.float32)
        dark = (edge[window] > 127) | (_PATTERNS[CLASSES[label]](local[..., 0], local[..., 1]) > 0.25)
        tone = np.where(dark, DARK, LIGHT)
        return grain(rng, texture(rng, alpha[window].shape, contrast=0.2) * tone[..., None])

    return place(scene, alpha, paint, label)


def dressed(rng: np.random.Generator, pose: Pose, canvas: np.ndarray, window: tuple) -> np.ndarray:
    """``canvas[window]`` with a person of one random colour in the two tones that everything has."""
    base = random_color(rng)
    colors = np.stack([base + 0.06 * (random_color(rng) - base) for _ in range(5)])
    colors *= np.array([DARK, LIGHT, DARK, LIGHT, DARK], np.float32)[:, None]
    return grain(rng, draw_person(rng, pose, canvas, colors)[0][window].astype(np.float32))


def silhouette(pose: Pose, size: int) -> np.ndarray:
    """Coverage ``[size, size]``, uint8, of a person."""
    return draw_person(np.random.default_rng(0), pose, np.zeros((size, size, 3), np.uint8), np.zeros((5, 3)))[1]


def _add_person(rng: np.random.Generator, scene: Scene, scale: float) -> bool:
    size = len(scene.owner)
    height = np.clip(size * scale * np.exp(rng.normal(np.log(0.55), 0.25)), 0.22 * size, 1.1 * size)
    return add_person(rng, scene, height)


def add_person(rng: np.random.Generator, scene: Scene, height: float) -> bool:
    """Put a person of so many pixels, if standing straight, at a random position; as :func:`place`."""
    size = len(scene.owner)
    pose = random_pose(rng, rng.uniform(0.06, 0.94, 2) * size, height)
    return place(scene, silhouette(pose, size), partial(dressed, rng, pose, scene.image), 0, keypoints=pose.keypoints)


def _add_crowd(rng: np.random.Generator, scene: Scene) -> bool:
    """A row of small people who overlap, annotated together as COCO does with ``iscrowd``."""
    size = len(scene.owner)
    start, height = rng.uniform(0.15, 0.6, 2) * size, rng.uniform(0.11, 0.17) * size
    steps = np.arange(rng.integers(5, 9)) * 0.42 * height
    poses = [random_pose(rng, start + [step, rng.normal(0, 0.06) * height], height) for step in steps]
    segmentations = [silhouette(pose, size) for pose in poses]
    alpha = np.max(segmentations, axis=0)

    def paint(window):
        patch = scene.image[window].astype(np.float32)
        for pose, segmentation in zip(poses, segmentations):
            covered = segmentation[window] > 127
            patch[covered] = dressed(rng, pose, scene.image, window)[covered]
        return patch

    return place(scene, alpha, paint, 0, crowd=True)


# --- contours and patterns
# Contours: closed lines [N, 2] around (0, 0), about 1 in radius, upright; a second contour is a hole. Patterns: a
# function of the point (x, y) of the upright shape, in periods of the pattern: dark above 0.25, which with the dark
# contour is half of a shape.

MAX_TILT = 20  # degrees


def _circle(radius: float = 1.0, corners: int = 48) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return radius * np.stack([np.sin(angle), -np.cos(angle)], axis=1)


def _star(inner: float) -> np.ndarray:
    points = _circle(1.3, 10)
    points[1::2] *= inner
    return points


def _ring(flat: float, hole: float) -> list[np.ndarray]:
    return [_circle(1.1) * [1, flat], _circle(hole) * [1, flat]]


POLYGONS = {
    'ball': lambda rng: [_circle() * [1, rng.uniform(0.9, 1)]],
    'box': lambda rng: [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [1, rng.uniform(0.7, 1)]],
    'cone': lambda rng: [np.array([[-1, 0.9], [1, 0.9], [0, -1.25]]) * [rng.uniform(0.75, 1.1), 1]],
    'star': lambda rng: [_star(rng.uniform(0.4, 0.5))],
    'ring': lambda rng: _ring(rng.uniform(0.85, 1), rng.uniform(0.5, 0.62)),
}


_PATTERNS = {
    'ball': lambda x, y: np.sin(2 * np.pi * np.hypot(x, y)),  # rings around the middle
    'box': lambda x, y: np.sin(2 * np.pi * x),  # upright stripes
    'cone': lambda x, y: np.sin(2 * np.pi * y) - 0.15,  # bands
    'star': lambda x, y: np.maximum(np.sin(5 * x), np.sin(5 * y)) - 0.6,  # a grid
    'ring': lambda x, y: np.sin(2 * np.pi * (0.7 * x + 0.7 * y)) - 0.2,  # slanting stripes
}
