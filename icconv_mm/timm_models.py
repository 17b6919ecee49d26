"""Registers the package's networks in timm: after ``import icconv_mm.timm_models``, ``timm.create_model`` builds them.

timm's tools build a network by its name alone. For a network that needs a dilation pattern, the name of an analytic
pattern may follow: ``'ic_resnet50.geometric_d4'``. ``'small'`` is ``'icconv_small'`` in timm.
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import nn

from icconv_mm.models import create_model, default_cfg, list_models
from icconv_mm.patterns.load import analytic_names


def _name_in_timm(name: str) -> str:
    """Returns a name that says whose network it is: ``'icconv_small'``."""
    return name if name.startswith(('ic_', 'pyconv_')) else f'icconv_{name}'


default_cfgs = generate_default_cfgs(
    {
        f'{_name_in_timm(name)}.{pattern}'.rstrip('.'): default_cfg(name)
        for name in list_models()
        for pattern in ('', *(analytic_names() if name.startswith('ic_') else ()))
    }
)


def _register(name: str) -> None:
    shipped = default_cfg(name).get('file')

    def build(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict | None = None,
        cache_dir: Any = None,
        **options: Any,
    ) -> nn.Module:
        """Builds the network as :func:`icconv_mm.create_model`; a ``file`` in ``pretrained_cfg`` has the weights."""
        if isinstance(pretrained_cfg, str):  # the part after the dot in the name
            options, pretrained_cfg = {'pattern': pretrained_cfg, **options}, None
        cfg = resolve_pretrained_cfg(_name_in_timm(name), pretrained_cfg, pretrained_cfg_overlay).to_dict()
        if pretrained and cfg.get('file') not in (None, shipped):  # a file of the user's
            options['checkpoint_path'], pretrained = cfg['file'], False
        network = create_model(name, pretrained=pretrained, **options)
        if not pretrained:  # else it knows the classes of its weights
            network.default_cfg = network.pretrained_cfg = cfg
        return network

    build.__name__ = build.__qualname__ = _name_in_timm(name)
    register_model(build)


for _name in list_models():
    _register(_name)
