"""The miniature set of scales and distances: a harder one, in which it is known what decides.

It is laid out and drawn as :mod:`icconv_tools.miniature`, with a third split ``test`` and ``crops/SPLIT/CLASS``,
one image per object, for classification. In every image sizes differ by a factor of 16, objects touch and hide each
other, and shapes of no class lie about. Of the six classes

* ``person`` (with keypoints) and ``star`` are told by their contour, at any size;
* ``stripes`` and ``checks`` have equal contours, tones and colours: a texture of a few pixels tells them;
* ``beside`` and ``above`` are the same ring: a mark at one of the planted distances tells them, on the left or right of
  a ``beside``, over or under an ``above``. Across that axis there is a mark too, at a distance that is not planted, so
  that neither the ring, nor a mark, nor its direction alone decides.

The annotation of a ring says its ``distance`` in pixels, the ``mark`` (x, y) and its own ``center``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import cv2
import numpy as np

from icconv_mm.errors import InputError
from icconv_tools.miniature.dataset import MiniatureOptions
from icconv_tools.miniature.people import SUBPIXEL_BITS, fixed
from icconv_tools.miniature.scenes import (
    DARK,
    LIGHT,
    MAX_TILT,
    POLYGONS,
    Scene,
    add_person,
    background,
    grain,
    place,
    texture,
)

CLASSES = ('person', 'star', 'stripes', 'checks', 'beside', 'above')
MARK = 3.0  # radius in pixels of a mark, which has a dark core
_DECOYS = (0.5, 1.5)  # distances of the marks that say nothing, in terms of the planted one
_APART = 0.2  # of a planted distance, which such a mark keeps from it
_HEIGHTS = (0.2, 0.9)  # of people, as shares of the image
_ATTEMPTS = 12  # for a position; then the object is given up


def _attempt(put: Callable[[], bool]) -> None:
    """Try positions until one will do; at last give up."""
    any(put() for _ in range(_ATTEMPTS))


@dataclass(frozen=True)
class ScalesOptions(MiniatureOptions):
    """What to draw. The side of an object is the square root of its area, before others hide it.

    Raises:
        InputError: If a number is out of range.
    """

    train: int = 400
    val: int = 100
    test: int = 200
    distances: tuple[int, ...] = (24,)  # in pixels, from the middle of a ring to the mark that decides

    splits: ClassVar[tuple[str, ...]] = ('train', 'val', 'test')
    classes: ClassVar[tuple[str, ...]] = CLASSES
    version: ClassVar[int] = 1
    crop: ClassVar[int] = 64
    title: ClassVar[str] = 'miniature dataset of scales'

    smallest: ClassVar[int] = 6  # side in pixels
    period: ClassVar[int] = 4  # of the fine texture, in pixels
    people: ClassVar[int] = 3  # at most
    objects: ClassVar[int] = 8  # stars and textures, of which one is the largest and one the smallest
    rings: ClassVar[int] = 4
    crowding: ClassVar[float] = 0.4  # share of the objects that are put against another one
    clutter: ClassVar[int] = 8  # shapes of no class

    def __post_init__(self) -> None:
        self._require(train=1, val=1, test=1, size=64, seed=0)
        if not self.distances or not all(2 * MARK < distance < self.size / 2 for distance in self.distances):
            raise InputError(
                f'{self.title}: distances must be above {2 * MARK:.0f} and below half of size ({self.size}), '
                f'got {self.distances}'
            )

    @property
    def largest(self) -> int:
        """Side in pixels."""
        return 7 * self.size // 8

    def draw(self, rng: np.random.Generator) -> Scene:
        """One scene: what has no class, then objects from large to small, then rings with their marks."""
        scene = Scene(background(rng, self.size), np.zeros((self.size, self.size), np.int32))
        for _ in range(self.clutter):
            self._add_clutter(rng, scene)
        labels = rng.integers(1, 4, self.objects)
        labels[:1] = rng.integers(2, 4)  # a star would not fit into the image
        sides = self._sides(rng)
        for place_it in (
            *(partial(self._add_object, rng, scene, *pair) for pair in zip(labels[:1], sides)),
            *(partial(self._add_person, rng, scene) for _ in range(rng.integers(1, self.people + 1))),
            *(partial(self._add_object, rng, scene, *pair) for pair in zip(labels[1:], sides[1:])),
        ):
            _attempt(place_it)
        marks: list[np.ndarray] = []
        for _ in range(self.rings):
            _attempt(partial(self._add_ring, rng, scene, marks))
        return scene

    def _sides(self, rng: np.random.Generator) -> np.ndarray:
        """Sides in pixels, the largest first, evenly over the logarithm of the range, of which both ends occur."""
        steps = (np.arange(self.objects) + rng.uniform(0, 1, self.objects)) / self.objects
        steps[:1], steps[-1:] = 0.0, 1.0
        return self.largest * (self.smallest / self.largest) ** steps

    def _add_clutter(self, rng: np.random.Generator, scene: Scene) -> None:
        """A triangle in the two tones that everything has."""
        side = self.smallest * (self.largest / self.smallest) ** rng.uniform(0, 0.7)
        alpha, _ = self._coverage(POLYGONS['cone'](rng), side, rng.uniform(0, 1, 2) * self.size, rng.uniform(0, 360))
        left, top, width, height = cv2.boundingRect(alpha)
        window = np.s_[top : top + height, left : left + width]
        if not width:
            return  # outside
        colors = np.clip(texture(rng, (height, width), contrast=0.2) * rng.choice([DARK, LIGHT]), 0, 255)
        weight, behind = alpha[window][..., None] / np.float32(255), scene.image[window]
        scene.image[window] = np.rint(behind + weight * (colors - behind)).astype(np.uint8)

    def _coverage(self, segmentation: list[np.ndarray], side: float, center: np.ndarray, tilt: float):
        """Coverage ``[size, size]``, uint8, of a contour of ``side`` ** 2 pixels, and the matrix that rotated it."""
        areas = [cv2.contourArea(points.astype(np.float32)) for points in segmentation]
        radius = side / np.sqrt(areas[0] - sum(areas[1:]))  # the others are holes
        angle = np.deg2rad(tilt)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        alpha = np.zeros((self.size, self.size), np.uint8)
        contours = [fixed(points @ turn * radius + center) for points in segmentation]
        cv2.fillPoly(alpha, contours, 255, cv2.LINE_AA, SUBPIXEL_BITS)
        return alpha, turn

    def _center(self, rng: np.random.Generator, scene: Scene, side: float) -> np.ndarray:
        """A position (x, y): anywhere, against an earlier object or, of a large one, in the middle of the image."""
        if 2 * side > self.size:
            return rng.uniform(0.48, 0.52, 2) * self.size
        if scene.items and rng.random() < self.crowding:
            mask = scene.visible(int(rng.integers(len(scene.items))))
            if mask.any():
                y, x = np.argwhere(mask)[rng.integers(mask.sum())]
                angle = rng.uniform(0, 2 * np.pi)
                return np.array([x, y]) + 0.7 * side * np.array([np.cos(angle), np.sin(angle)])
        return rng.uniform(0.04, 0.96, 2) * self.size

    def _add_person(self, rng: np.random.Generator, scene: Scene) -> bool:
        return add_person(rng, scene, self.size * np.exp(rng.uniform(*np.log(_HEIGHTS))))

    def _add_object(self, rng: np.random.Generator, scene: Scene, label: int, side: float) -> bool:
        center, tilt = self._center(rng, scene, side), rng.uniform(-MAX_TILT, MAX_TILT)
        kind = 'star' if label == 1 else ('ball', 'box')[rng.integers(2)]
        alpha, turn = self._coverage(POLYGONS[kind](rng), side, center, tilt)

        def paint(window):
            y, x = np.mgrid[window].astype(np.float32)
            along, across = 2 * np.pi / self.period * np.moveaxis((np.stack([x, y], -1) - center) @ turn.T, -1, 0)
            if label == 1:
                dark = np.hypot(along, across) * self.period < np.pi * 0.7 * side  # a core of half the area
            else:
                dark = np.sin(along) * (1 if label == 2 else np.sin(across)) > 0
            tone = np.where(dark, DARK, LIGHT)
            return grain(rng, texture(rng, dark.shape, contrast=0.2) * tone[..., None])

        return place(scene, alpha, paint, int(label))

    def _add_ring(self, rng: np.random.Generator, scene: Scene, marks: list[np.ndarray]) -> bool:
        """A ring, its mark and the other mark; ``marks`` are those of the image so far and are added to."""
        label, distance = 4 + int(rng.integers(2)), int(rng.choice(self.distances))
        decoy = distance * rng.choice([angle for angle in _DECOYS if self._says_nothing(angle * distance)] or [0.5])
        axes = [np.array([1, 0]), np.array([0, 1])]
        along, across = axes if label == 4 else axes[::-1]
        center = np.rint(rng.uniform(0.04, 0.96, 2) * self.size)
        points = [center + rng.choice([-1, 1]) * distance * along, center + rng.choice([-1, 1]) * decoy * across]
        side = self.smallest * rng.uniform(1.3, 2.6)
        reach = side + MARK
        inside = all((point > MARK).all() and (point < self.size - MARK).all() for point in points)
        if not inside or self._disturbs(scene, points, marks):
            return False
        if any(np.abs(mark - center).max() < reach for mark in marks):
            return False
        near_rings = (item.planted.get('center') for item in scene.items)
        rings = [np.array(ring) for ring in near_rings if ring is not None]
        if any(self._decides(ring, point) for ring in rings for point in points):
            return False  # a mark would tell another ring's class
        if any(self._decides(center, mark) for mark in marks):
            return False
        alpha, _ = self._coverage(POLYGONS['ring'](rng), side, center, 0.0)
        tones = rng.permutation([DARK, LIGHT])

        def paint(window):
            x = np.mgrid[window][1] - center[0]
            tone = np.where(x < 0, *tones).astype(np.float32)
            return grain(rng, texture(rng, x.shape, contrast=0.2) * tone[..., None])

        planted = {'distance': distance, 'mark': points[0].tolist(), 'center': center.tolist()}
        if not place(scene, alpha, paint, label, planted=planted):
            return False
        for point in points:
            for radius, color in ((MARK, (250, 250, 250)), (0.55 * MARK, (5, 5, 5))):
                at = fixed(point).tolist()
                cv2.circle(scene.image, at, round(radius * (1 << SUBPIXEL_BITS)), color, -1, cv2.LINE_AA, SUBPIXEL_BITS)
        marks += points
        return True

    def _says_nothing(self, distance: float) -> bool:
        fits = distance < self.size / 2 and distance > 3 * MARK
        return fits and all(abs(distance - other) > _APART * other for other in self.distances)

    def _decides(self, ring: np.ndarray, mark: np.ndarray) -> bool:
        """Whether a mark is where one is looked for that tells the class of a ring."""
        offset = np.abs(mark - ring)
        return min(offset) < 2 * MARK and any(abs(max(offset) - distance) < 2 * MARK for distance in self.distances)

    def _disturbs(self, scene: Scene, points: list[np.ndarray], marks: list[np.ndarray]) -> bool:
        """Whether marks there would touch others, or hide a good part of a small object."""
        for point in points:
            if any(np.abs(point - mark).max() < 3 * MARK for mark in marks):
                return True
            x, y = np.rint(point).astype(int)
            reach = int(MARK)
            for owner in np.unique(scene.owner[y - reach : y + reach + 1, x - reach : x + reach + 1]):
                if owner and scene.items[owner - 1].area < 16 * np.pi * MARK**2:
                    return True
        return False
