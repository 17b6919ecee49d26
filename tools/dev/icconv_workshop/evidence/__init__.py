"""The comparisons of ``tools/dev/evidence.py``: does what a paper claims hold in miniature?

A *run* trains one *arm* with one seed and tests it; its result is one JSON file. A *comparison* holds arms against a
baseline, seed by seed. :mod:`icconv_workshop.evidence.arms` is the table of both; docs/evidence.md is the protocol.
"""
