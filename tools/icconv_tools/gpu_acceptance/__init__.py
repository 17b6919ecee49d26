"""Everything that is measured on a GPU, piece by piece: ``tools/gpu_acceptance.py``.

A *piece* is a module of ``measurements`` with a function of that name. Each of its measurements is one figure of the
file of results. A process of its own works through them, so that one that crashes or hangs costs no other.
"""
