"""Deployed models: norms folded into convolutions, activations fused, memory layout chosen once."""

from icconv_mm.deployment.deploy import deploy

__all__ = ['deploy']
