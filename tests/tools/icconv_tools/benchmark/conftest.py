"""The small pose model, for the suite that times its decoding."""

from pose_fixtures import mmpose, model, model_cfg

__all__ = ['mmpose', 'model', 'model_cfg']
