"""Everything that is measured on a GPU, piece by piece: ``tools/gpu_acceptance.py``.

A *piece* is a module of :mod:`acceptance.pieces` with ``measurements(bench)``. Each of its measurements is one figure
of the result file. A process of its own works through them, so that one that crashes or hangs costs no other.
"""
