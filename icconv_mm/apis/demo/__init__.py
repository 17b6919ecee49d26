"""The demo: one backbone file, several tasks, trained and tested on the miniature dataset."""

from icconv_mm.apis.demo.run import DemoOptions, run_demo

__all__ = ['DemoOptions', 'run_demo']
