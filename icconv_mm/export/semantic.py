"""Segmentors of mmseg, up to logits of the size of their input."""

from typing import Any

from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import Upsample, resize
from torch import Tensor, nn

from icconv_mm.errors import InputError


class _Enlarged(nn.Module):
    """mmseg's ``Upsample`` by a whole factor; its own arithmetic, in floats, would make sizes constants."""

    def __init__(self, module: Upsample):
        super().__init__()
        self.factor, self.mode, self.align_corners = int(module.scale_factor), module.mode, module.align_corners

    def forward(self, x: Tensor) -> Tensor:
        size = [side * self.factor for side in x.shape[-2:]]
        return resize(x, size, None, self.mode, self.align_corners, warning=False)


class SegmentorOutputs(nn.Module):
    """``logits`` [N, C, H, W] of a segmentor that looks at whole images.

    Args:
        segmentor: An ``EncoderDecoder``.
        where: Its name in an error.

    Raises:
        InputError: It is of another class, or tests by sliding windows.
    """

    kind = 'semantic'
    names = ('logits',)

    def __init__(self, segmentor: nn.Module, where: str = 'model'):
        super().__init__()
        if type(segmentor) is not EncoderDecoder or type(segmentor).encode_decode is not EncoderDecoder.encode_decode:
            raise InputError(f'{where}: {type(segmentor).__name__} cannot be exported; of mmseg, EncoderDecoder can')
        if (mode := segmentor.test_cfg.get('mode', 'whole')) != 'whole':
            raise InputError(f"{where}.test_cfg.mode: {mode!r} cannot be exported, only 'whole'")
        self.segmentor = segmentor
        for parent in list(segmentor.modules()):
            for name, child in parent.named_children():
                if type(child) is Upsample and not child.size and child.scale_factor % 1 == 0:
                    setattr(parent, name, _Enlarged(child))

    def details(self, meta: dict) -> dict[str, Any]:
        """What the runtime needs to know."""
        head = self.segmentor.decode_head
        return {'align_corners': bool(head.align_corners), 'threshold': getattr(head, 'threshold', None)}

    def forward(self, image: Tensor, size: Tensor | None) -> tuple[Tensor]:
        """``[N, 3, H, W]`` normalised."""
        logits = self.segmentor.decode_head(self.segmentor.extract_feat(image))
        align_corners = self.segmentor.align_corners
        return (resize(logits, size=image.shape[-2:], mode='bilinear', align_corners=align_corners, warning=False),)
