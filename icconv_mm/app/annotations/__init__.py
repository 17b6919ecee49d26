"""Annotations of images: reads any format, checks and converts what was read."""
