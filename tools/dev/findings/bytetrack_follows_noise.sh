#!/usr/bin/env bash
# trackers 2.6.1 (with supervision 0.31.2), ByteTrackTracker with its defaults.
# Good guess: boxes that score less than 0.1 take part in nothing, as in ByteTrack's paper (arXiv 2110.06864, section
# 3) and its official code, whose second association takes scores from 0.1 to the high threshold.
# What happens: the second association takes any score. A track whose object is gone for good goes on for ever with a
# box of score 0.001 that lies near; it keeps its number, and what comes to that place later inherits it.
# Who is hurt: whoever feeds the boxes of a detector as COCO's evaluation wants them (100 per image, from a score of
# 0.001 or 0.05): objects that left are counted as present. What helps: drop scores below 0.1 before the tracker.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check trackers==2.6.1 supervision==0.31.2 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import supervision as sv
from trackers import ByteTrackTracker

print(*(f'{name} {version(name)}' for name in ('trackers', 'supervision', 'numpy')))


def tracked(noise, frames=300):
    """Numbers of the box in each frame: an object for 10 frames, then boxes of score `noise` in its place."""
    tracker, numbers = ByteTrackTracker(), []
    for frame in range(frames):
        score = 0.9 if frame < 10 or frame >= frames - 5 else noise
        box = np.array([[50.0, 50.0, 90.0, 90.0]]) if score else np.zeros((0, 4))
        found = tracker.update(sv.Detections(box, confidence=np.full(len(box), score)))
        numbers.append(found.tracker_id.tolist())
    return numbers


nothing, noise = tracked(0), tracked(0.001)
print('nothing for 285 frames:       number before', nothing[9], 'in frame 150', nothing[150], 'after', nothing[-1])
print('score 0.001 for 285 frames:   number before', noise[9], 'in frame 150', noise[150], 'after', noise[-1])
assert nothing[9] == [0] and nothing[150] == [] and nothing[-1] == [1], 'the track ended, and a new one began'
assert noise[9] == noise[150] == noise[-1] == [0], 'noise is followed'
print('a track follows boxes of score 0.001 for as long as they come')
PYTHON
