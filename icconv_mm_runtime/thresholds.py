"""Decides which predictions are shown: the one rule for drawings, results, annotations and the page in the browser."""

from collections.abc import Mapping
from typing import Any

import numpy as np

DEFAULT_SCORE = 0.3  # lowest score of a shown object of a class without a threshold of its own
KEYPOINT_SCORE = 0.1  # lowest score of a shown keypoint: the detection threshold of published models


def threshold_of(task: Mapping[str, Any], label: int, score_thr: float | None = None) -> float:
    """Returns the lowest score of a class's shown objects: the given one, its own in the task, or the default."""
    stored = (task.get('thresholds') or ())[label : label + 1]
    return score_thr if score_thr is not None else stored[0] if stored and stored[0] is not None else DEFAULT_SCORE


def reaches(scores: Any, least: Any) -> np.ndarray:
    """Returns whether scores are at least as high as others; both as float32, as networks compute them."""
    return np.asarray(scores, np.float32) >= np.asarray(least, np.float32)


def shown(task: Mapping[str, Any], arrays: Mapping[str, np.ndarray], score_thr: float | None = None) -> np.ndarray:
    """Returns the indices of the objects or people that are shown, the best score first.

    Args:
        task: Its description, optionally with ``thresholds`` of the classes.
        arrays: ``scores`` [n], and ``labels`` [n] of objects, as :func:`icconv_mm_runtime.outputs.decode` returns them.
        score_thr: Lowest score; None for that of each class (:func:`threshold_of`), 0 for all.
    """
    scores = np.asarray(arrays['scores'])
    labels = arrays.get('labels', np.zeros(len(scores), int))
    least = [threshold_of(task, int(label), score_thr) for label in labels]
    order = np.argsort(-scores, kind='stable')
    return order[reaches(scores, least)[order]] if len(scores) else order
