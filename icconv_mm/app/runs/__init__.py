"""Runs: a config or the folder of a training becomes what can be trained, tested, predicted with or exported."""
