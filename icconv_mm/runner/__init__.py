"""Runs of a config: reads and prepares it, trains, tests, predicts, exports, browses and searches; the command line.

The public functions are those of :mod:`icconv_mm.apis`.
"""
