"""RF-Next, mmcv's search of dilations while training, on a ResNet: https://arxiv.org/abs/2206.06637."""

from collections.abc import Mapping
from typing import Any

import torch
from mmcv.cnn.rfsearch.operator import BaseConvRFSearchOp
from mmcv.cnn.rfsearch.search import RFSearchHook
from mmcv.cnn.rfsearch.utils import expand_rates
from mmengine.registry import MODELS
from torch import Tensor

from icconv_mm.backbones import ResNet
from icconv_mm.patterns.pattern import DilationPattern


@MODELS.register_module()
class RFNextResNet(ResNet):
    """A ResNet whose 3x3 convolutions have a branch for each of several dilations, as ``RFSearchHook`` makes them.

    The dilations, which the hook changes while it trains, are part of the weights. mmengine's runner makes the
    optimiser before any hook could add branches, so that the network has them from the beginning.

    Args:
        search: ``config['search']`` of the hook.
        **options: Those of the network.
    """

    def __init__(self, search: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        RFSearchHook(config=dict(search=dict(search)), verbose=False).init_model(self)

    def operators(self) -> list[BaseConvRFSearchOp]:
        """The convolutions that are searched, in order."""
        return [module for module in self.modules() if isinstance(module, BaseConvRFSearchOp)]

    def patterns(self) -> list[DilationPattern]:
        """A pattern for each 3x3 convolution of a residual block, the searched and the others."""
        patterns_by_rank = []
        for stage in range(1, 5):
            for module in getattr(self, f'layer{stage}').modules():
                if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
                    patterns_by_rank.append(DilationPattern([(module.out_channels, *module.dilation)]))
        return patterns_by_rank

    def get_extra_state(self) -> Tensor:
        """The dilations [n, 2] of the searched convolutions."""
        return torch.tensor([operator.op_layer.dilation for operator in self.operators()])

    def set_extra_state(self, state: Tensor) -> None:
        for operator, dilation in zip(self.operators(), state.tolist()):
            operator.op_layer.dilation = tuple(dilation)
            operator.op_layer.padding = operator.get_padding(operator.op_layer.dilation)
            operator.dilation_rates = expand_rates(operator.op_layer.dilation, operator.global_config)
