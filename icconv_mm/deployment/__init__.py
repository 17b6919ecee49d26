"""Deployed models: norms folded into convolutions, activations fused, one memory format."""

from icconv_mm.deployment.deploy import deploy

__all__ = ['deploy']
