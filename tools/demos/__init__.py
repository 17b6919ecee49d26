"""The demo: one backbone file, several tasks, trained and tested on the miniature dataset."""

from demos.run import DemoOptions, run_demo

__all__ = ['DemoOptions', 'run_demo']
