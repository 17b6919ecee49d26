"""Fixtures of the pose task, with those of the small pose model."""

from pose_fixtures import coco_meta, mmpose, model, model_cfg, sample

__all__ = ['coco_meta', 'mmpose', 'model', 'model_cfg', 'sample']
