"""IC-ResNet and IC-ResNeXt: ResNets whose 3x3 convolutions are inception convolutions.

Inception Convolution with Efficient Dilation Search, CVPR 2021, https://arxiv.org/abs/2012.13587.
"""

from collections.abc import Sequence
from pathlib import Path

from icconv_mm.backbones.resnet import ResNet
from icconv_mm.compat import MODELS, library_default
from icconv_mm.errors import InputError
from icconv_mm.layers import to_inception, to_supernet
from icconv_mm.layers.convert import check_choice


@MODELS.register_module()
class ICResNet(ResNet):
    """IC-ResNet.

    Parameters, keys and FLOPs are those of the dense ResNet of the same depth. In the networks of basic blocks (18, 34)
    both convolutions of a block are inception convolutions.

    Args:
        depth: 18, 34, 50, 101 or 152.
        pattern: A pattern for all 3x3 convolutions in forward order: the name of an analytic family ('dense',
            'geometric_d4'), a published name ('detection/ic_resnet50_k9'), a file, or a list. See
            :func:`icconv_mm.patterns.load_pattern`.
        supernet_d_max: Largest dilation of the search, given instead of a pattern. The 3x3 convolutions get kernels of
            ``2 * supernet_d_max + 1``, and the network is the supernet in which dilations are searched.
        align: Channels in a block, of which the runs of the pattern are made multiples, as exported files compute in
            blocks: see :func:`icconv_mm.patterns.align`. None keeps the pattern.
        **kwargs: Arguments of :class:`icconv_mm.backbones.resnet.ResNet`, which are those of the libraries' ResNets.
            Stages with ``dcn`` are deformable instead of inception; a whole network's pattern skips their entries.

    Raises:
        InputError: If neither a pattern nor ``supernet_d_max`` is given, or both, the pattern does not fit, or another
            argument is out of range; the message names it and what was expected.
        MissingFileError: If the pattern file is missing.

    Example:
        >>> net = ICResNet(18, pattern='geometric_d4', out_indices=(2, 3))
        >>> [level.shape for level in net(torch.randn(1, 3, 64, 64))]
        [torch.Size([1, 256, 4, 4]), torch.Size([1, 512, 2, 2])]
    """

    fixed_options: dict = {}  # arguments of ResNet that a variant fixes
    # convolutions by name: plugins and the offsets of deformable layers stay unchanged
    converted_names = r'^layer\d\.\d+\.conv\d$'

    def __init__(
        self,
        depth: int,
        pattern: str | Path | Sequence | None = None,
        *,
        supernet_d_max: int | None = None,
        align: int | None = None,
        **kwargs,
    ):
        check_choice(type(self).__name__, pattern, supernet_d_max, align)
        for name, value in self.fixed_options.items():
            if kwargs.get(name, value) != value:
                raise InputError(f'{name} of {type(self).__name__} is always {value}, got {kwargs[name]!r}')
        super().__init__(depth, **kwargs | self.fixed_options)
        if pattern is None:
            to_supernet(self, supernet_d_max, filter=self.converted_names)
        else:
            to_inception(self, pattern, self.converted_names, align)


@MODELS.register_module()
class ICResNeXt(ICResNet):
    """IC-ResNeXt: an :class:`ICResNet` of 50 or more layers with grouped 3x3 convolutions; 32x4d by default.

    Args:
        depth: 50, 101 or 152.
        pattern: A pattern as of :class:`ICResNet`; it may count in groups, as the published one does.
        groups: Groups of the 3x3 convolutions; 32 by default, 1 in configs of mmdet and mmseg, as of their ResNeXt.
        base_width: Channels of a group in the first stage, also ``width_per_group``; 4 by default. It has
            no effect with one group, as in the libraries.
        **kwargs: Arguments of :class:`ICResNet`.

    Example:
        >>> net = ICResNeXt(50, pattern='geometric_d4', out_indices=(3,))
        >>> net.layer1[0].conv2.groups, net(torch.randn(1, 3, 64, 64))[0].shape
        (32, torch.Size([1, 2048, 2, 2]))
    """

    arch_settings = {depth: ResNet.arch_settings[depth] for depth in (50, 101, 152)}
    library_options = {'groups': (32, 'ResNeXt')}

    def __init__(
        self,
        depth: int,
        pattern: str | Path | Sequence | None = None,
        groups: int | None = None,
        base_width: int | None = None,
        **kwargs,
    ):
        groups = library_default('groups', *self.library_options['groups']) if groups is None else groups
        if groups == 1:
            base_width = kwargs['width_per_group'] = None
        elif base_width is None and kwargs.get('width_per_group') is None:
            base_width = 4
        super().__init__(depth, pattern, groups=groups, base_width=base_width, **kwargs)


@MODELS.register_module()
class ICResNetV1c(ICResNet):
    """An :class:`ICResNet` with a stem of three 3x3 convolutions, to replace a ``ResNetV1c``.

    Args:
        depth: 18, 34, 50, 101 or 152.
        pattern: A pattern as of :class:`ICResNet`.
        **kwargs: Arguments of :class:`ICResNet`; ``deep_stem`` is True.

    Raises:
        InputError: As of :class:`ICResNet`, and for ``deep_stem=False``.

    Example:
        >>> [name for name, _ in ICResNetV1c(18, pattern='dense').named_children()][:2]
        ['stem', 'maxpool']
    """

    fixed_options = {'deep_stem': True}


@MODELS.register_module()
class ICResNetV1d(ICResNetV1c):
    """An :class:`ICResNetV1c` with average pooling in strided shortcuts, to replace a ``ResNetV1d``.

    Args:
        depth: 18, 34, 50, 101 or 152.
        pattern: A pattern as of :class:`ICResNet`.
        **kwargs: Arguments of :class:`ICResNet`; ``deep_stem`` and ``avg_down`` are True.

    Raises:
        InputError: As of :class:`ICResNet`, and for ``deep_stem=False`` or ``avg_down=False``.

    Example:
        >>> ICResNetV1d(18, pattern='dense').layer2[0].downsample[0]
        AvgPool2d(kernel_size=2, stride=2, padding=0)
    """

    fixed_options = {'deep_stem': True, 'avg_down': True}
