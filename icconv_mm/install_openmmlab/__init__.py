"""The OpenMMLab libraries that this package is tested with, into the environment of the Python that runs this.

What ``pip install mmcv mmdet mmpose`` does not do: mmcv is compiled for the installed torch, with a setuptools that its
build still understands; versions are those of ``constraints/``, which work together; packages whose own requirements do
not install beside the rest come without these.

Nothing is changed without ``--yes``: the plan is printed, with what would be replaced.

Examples:
  python -m icconv_mm.install_openmmlab
  python -m icconv_mm.install_openmmlab --yes
"""

# Only the standard library, no other module of the package, and relative imports: scripts/setup_env.py loads this
# folder on its own, before torch is there.
