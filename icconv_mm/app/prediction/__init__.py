"""Prediction with checkpoints and exported files, and what comes of results: drawings, files, tracks, choices."""
