"""Numbers the objects of a video from frame to frame, by ByteTrack of the library trackers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from icconv_mm.errors import MissingLibraryError
from icconv_mm.versions import is_installed
from icconv_mm_runtime.results import Arrays
from icconv_mm_runtime.thresholds import reaches, threshold_of

# ByteTrack (2110.06864, section 3) ignores boxes that score less; the library would continue tracks with them.
_LEAST_SCORE = 0.1
# A soft suppression leaves boxes that overlap better ones, and lost tracks would go on with them.
_IOU = 0.5


class Tracker:
    """Numbers the objects of successive frames; objects of different classes never share a track.

    Args:
        task: Description of the network's task: ``classes``, and optionally ``thresholds``.
        rate: Frames per second; a track without an object for a second ends.
        score_thr: Lowest score of an object that begins a track; by default that of each drawn class.

    Raises:
        MissingLibraryError: The library trackers is not installed.
    """

    def __init__(self, task: Mapping[str, Any], rate: float, score_thr: float | None = None) -> None:
        if not is_installed('trackers'):
            raise MissingLibraryError('track needs trackers: pip install trackers (it replaces numpy 1 by numpy 2)')
        self._task, self._rate, self._score_thr = task, rate, score_thr
        self._by_label: dict[int, Any] = {}
        self._numbers: dict[tuple[int, int], int] = {}

    def update(self, arrays: Arrays) -> np.ndarray:
        """Returns the number of each object's track in the next frame, [n], from 1; 0 for an object without a track.

        Args:
            arrays: ``boxes`` [n, 4] as corners in pixels, ``scores`` [n] and ``labels`` [n].
        """
        from supervision import Detections

        boxes, scores, labels = (np.asarray(arrays[name]) for name in ('boxes', 'scores', 'labels'))
        tracks = np.zeros(len(labels), int)
        kept = reaches(scores, _LEAST_SCORE)
        for label in sorted({*self._by_label, *labels[kept].tolist()}):
            indices = np.flatnonzero(kept & (labels == label))
            objects = Detections(boxes[indices], confidence=scores[indices], data={'place': indices})
            tracked = self._tracker(label).update(objects.with_nms(_IOU, class_agnostic=True))
            for index, number in zip(tracked.data.get('place', ()), tracked.tracker_id, strict=True):
                if number >= 0:
                    tracks[index] = self._numbers.setdefault((label, int(number)), len(self._numbers) + 1)
        return tracks

    def _tracker(self, label: int) -> Any:
        if label not in self._by_label:
            from trackers import ByteTrackTracker

            least = threshold_of(self._task, label, self._score_thr)
            self._by_label[label] = ByteTrackTracker(
                frame_rate=self._rate, track_activation_threshold=least, high_conf_det_threshold=least
            )
        return self._by_label[label]
