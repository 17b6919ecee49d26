"""Box detection and instance segmentation with mmdet 3."""
