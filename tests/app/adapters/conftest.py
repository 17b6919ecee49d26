"""Fixtures of the pose task, for its adapter."""

from pose_fixtures import coco_meta, mmpose, sample

__all__ = ['coco_meta', 'mmpose', 'sample']
