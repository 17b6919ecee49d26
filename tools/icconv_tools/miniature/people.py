"""Articulated people: a random pose of the 17 COCO keypoints and the body drawn over it.

The body is a chain of limbs seen from the front, so a person's left is on the right of the image unless limbs cross.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# fmt: off
KEYPOINTS = (
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder', 'left_elbow',
    'right_elbow', 'left_wrist', 'right_wrist', 'left_hip', 'right_hip', 'left_knee', 'right_knee', 'left_ankle',
    'right_ankle',
)
# COCO's own list: pairs of 1-based keypoint numbers.
SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11),
    (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)
# fmt: on
_KEYPOINT = {name: index for index, name in enumerate(KEYPOINTS)}
SUBPIXEL_BITS = 4

# Proportions in units of the standing height.
_TORSO, _NECK, _HEAD = 0.29, 0.13, 0.085
_SHOULDER, _HIP = 0.105, 0.065
_UPPER_ARM, _FOREARM, _THIGH, _SHIN = 0.165, 0.155, 0.23, 0.23


@dataclass(frozen=True)
class Pose:
    """A body in pixels."""

    keypoints: np.ndarray  # [17, 2], (x, y) in COCO's order
    head: np.ndarray  # [2], its centre
    height: float  # if standing straight
    leg: float  # width
    arm: float


def _degrees(rng: np.random.Generator, low: float, high: float) -> float:
    return np.deg2rad(rng.uniform(low, high))


def random_pose(rng: np.random.Generator, center: np.ndarray, height: float) -> Pose:
    """A person of ``height`` pixels (as if standing straight) whose waist is at ``center`` (x, y)."""
    keypoints = np.zeros((17, 2))
    turn = rng.uniform(-0.8, 0.8)  # of the head, -1 and 1 being profiles
    breadth = rng.uniform(0.75, 1.15)
    chest = np.array([0.0, -_TORSO / 2])
    pelvis = np.array([0.0, _TORSO / 2])
    head = chest + np.array([rng.uniform(-0.03, 0.03), -_NECK])
    keypoints[_KEYPOINT['nose']] = head + _HEAD * np.array([0.45 * turn, 0.1])
    for side, sign in (('left', 1), ('right', -1)):
        keypoints[_KEYPOINT[f'{side}_eye']] = head + _HEAD * np.array([0.4 * sign + 0.3 * turn, -0.25])
        keypoints[_KEYPOINT[f'{side}_ear']] = head + _HEAD * np.array([0.85 * sign, 0.0])
        shoulder = chest + [sign * _SHOULDER * breadth, 0]
        upper = _degrees(rng, -20, 150)
        elbow = shoulder + _limb(rng, upper, sign, _UPPER_ARM)
        wrist = elbow + _limb(rng, upper + _degrees(rng, -110, 60), sign, _FOREARM)
        hip = pelvis + [sign * _HIP * breadth, 0]
        thigh = _degrees(rng, -12, 55)
        knee = hip + _limb(rng, thigh, sign, _THIGH)
        ankle = knee + _limb(rng, thigh + _degrees(rng, -55, 15), sign, _SHIN)
        first = _KEYPOINT[f'{side}_shoulder']  # COCO's order from here on: left and right of each keypoint in turn
        keypoints[first::2][:6] = shoulder, elbow, wrist, hip, knee, ankle
    lean = np.clip(rng.normal(0, 12), -35, 35)
    rotation = cv2.getRotationMatrix2D((0, 0), lean, 1.0)[:, :2]
    leg, arm = height * rng.uniform(0.075, 0.105), height * rng.uniform(0.058, 0.08)
    return Pose(keypoints @ rotation.T * height + center, rotation @ head * height + center, height, leg, arm)


def _limb(rng: np.random.Generator, angle: float, sign: int, length: float) -> np.ndarray:
    """A limb at ``angle`` radians from straight down, positive away from the body; ``sign`` is 1 for the left side.

    It has mostly its full length and sometimes looks shorter, pointing at the viewer.
    """
    shown = rng.uniform(0.55, 0.95) if rng.random() < 0.25 else 1.0
    return np.array([sign * np.sin(angle), np.cos(angle)]) * length * shown


def fixed(points: Sequence) -> np.ndarray:
    """OpenCV's fixed-point coordinates of points ``[..., 2]``."""
    return np.rint(np.asarray(points) * (1 << SUBPIXEL_BITS)).astype(np.int32)


def draw_person(
    rng: np.random.Generator, pose: Pose, canvas: np.ndarray, colors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a person.

    Args:
        rng: Source of the limbs' shades and of which limb is in front; the mask does not depend on it.
        pose: Positions of the keypoints.
        canvas: Image ``[H, W, 3]``, uint8, to draw over; it stays as it is.
        colors: Colours ``[5, 3]``, 0..255, of trousers, shirt, sleeves, skin and hair.

    Returns:
        The image with the person ``[H, W, 3]`` and the coverage ``[H, W]``, both uint8.
    """
    trousers, shirt, sleeves, skin, hair = colors
    canvas = np.dstack([canvas, np.zeros(canvas.shape[:2], np.uint8)])  # the fourth channel is the coverage
    h, leg, arm = pose.height, pose.leg, pose.arm

    def keypoint(name):
        return pose.keypoints[_KEYPOINT[name]]

    def shade(color):
        # Crossing limbs of one colour stay distinguishable.
        return (*np.clip(color * rng.uniform(0.9, 1.1), 0, 255).tolist(), 255)

    def line(a, b, width, color):
        cv2.line(canvas, *fixed([a, b]).tolist(), color, max(round(width), 2), cv2.LINE_AA, SUBPIXEL_BITS)

    def disc(center, radius, color):
        radius = round(radius * (1 << SUBPIXEL_BITS))
        cv2.circle(canvas, fixed(center).tolist(), radius, color, -1, cv2.LINE_AA, SUBPIXEL_BITS)

    for side in rng.permutation(['left', 'right']):
        line(keypoint(f'{side}_hip'), keypoint(f'{side}_knee'), leg, shade(trousers))
        line(keypoint(f'{side}_knee'), keypoint(f'{side}_ankle'), leg * 0.85, shade(trousers))
        disc(keypoint(f'{side}_ankle'), leg * 0.55, shade(hair))
    torso = [keypoint(name) for name in ('left_shoulder', 'right_shoulder', 'right_hip', 'left_hip')]
    color = shade(shirt)
    line((torso[0] + torso[1]) / 2, pose.head, arm, shade(skin))
    cv2.fillPoly(canvas, [fixed(torso)], color, cv2.LINE_AA, SUBPIXEL_BITS)
    for a, b in zip(torso, torso[1:] + torso[:1]):
        line(a, b, h * 0.05, color)
    disc(pose.head - [0, 0.25 * _HEAD * h], h * _HEAD, shade(hair))
    disc(pose.head, h * _HEAD, shade(skin))
    for name in ('left_eye', 'right_eye'):
        disc(keypoint(name), max(h * 0.014, 0.5), (25, 25, 25, 255))
    disc(keypoint('nose'), max(h * 0.014, 0.4), shade(hair))
    for side in rng.permutation(['left', 'right']):
        line(keypoint(f'{side}_shoulder'), keypoint(f'{side}_elbow'), arm, shade(sleeves))
        line(keypoint(f'{side}_elbow'), keypoint(f'{side}_wrist'), arm * 0.85, shade(skin))
        disc(keypoint(f'{side}_wrist'), arm * 0.6, shade(skin))
    return canvas[..., :3], canvas[..., 3].copy()
