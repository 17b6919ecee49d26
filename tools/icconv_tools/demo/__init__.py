"""The demo: one network for several tasks, or one for each, trained and tested on the miniature dataset."""

from icconv_tools.demo.pipeline import DemoOptions, earlier_results, run_demo

__all__ = ['DemoOptions', 'earlier_results', 'run_demo']
