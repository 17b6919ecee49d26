"""The ResNets of torchvision as backbones, which is what users have."""

from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models._utils import IntermediateLayerGetter


class _Stages(IntermediateLayerGetter):
    """The outputs of the stages of a network."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(super().forward(x).values())


def torchvision_resnet(depth: int) -> nn.Module:
    """A ResNet that returns the maps of its four stages."""
    return _Stages(get_model(f'resnet{depth}'), {f'layer{stage}': stage for stage in (1, 2, 3, 4)})
