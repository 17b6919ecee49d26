"""Deployed models: norms folded into convolutions, activations fused, memory layout chosen once."""

from icconv_mm.inference.deploy import deploy

__all__ = ['deploy']
