"""Codecs have a root registry of their own in mmpose; this is its child of scope ``icconv_mm``."""

from mmengine.registry import Registry
from mmpose.registry import KEYPOINT_CODECS as _KEYPOINT_CODECS

from icconv_mm.registry import SCOPE

KEYPOINT_CODECS = Registry('keypoint codec', parent=_KEYPOINT_CODECS, scope=SCOPE, locations=['icconv_mm.tasks.pose'])
