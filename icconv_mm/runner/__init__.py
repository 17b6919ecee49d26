"""Runs of a config: reading and preparing it, train, test, predict, browse and search, the hooks and the command line.

Its functions for users are those of :mod:`icconv_mm.apis`.
"""
