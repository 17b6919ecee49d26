"""The miniature dataset: a small COCO-format dataset that is drawn, not downloaded.

Scenes hold people (boxes, masks, 17 COCO keypoints) and five other shapes, and come with detection, keypoint and
semantic annotations::

    {train,val}/000001.jpg                        images
    semantic/{train,val}/000001.png               segmentation maps: 0 background, 1 person, 2 ball, ...
    annotations/instances_{train,val}.json        COCO detection and instance segmentation, six categories
    annotations/person_keypoints_{train,val}.json COCO person keypoints, one category
    miniature.json                                the options it was drawn with; written last

Equal options give equal bytes (with one version of OpenCV), and image ``i`` of a split does not depend on how many
follow. Everything is drawn by this package and free of any licence.

A harder one in the same layout is drawn by :mod:`icconv_workshop.evidence.scales`.
"""

from icconv_tools.miniature.dataset import (
    PALETTE,
    SEMANTIC_PALETTE,
    MiniatureOptions,
    OccupiedFolderError,
    ensure_miniature,
    is_drawn,
    scene,
)
from icconv_tools.miniature.people import KEYPOINTS, SKELETON
from icconv_tools.miniature.scenes import CLASSES

__all__ = [
    'CLASSES',
    'KEYPOINTS',
    'PALETTE',
    'SEMANTIC_PALETTE',
    'SKELETON',
    'MiniatureOptions',
    'OccupiedFolderError',
    'ensure_miniature',
    'is_drawn',
    'scene',
]
