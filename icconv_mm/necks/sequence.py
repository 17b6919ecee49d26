"""Several necks in sequence as one neck."""

from collections.abc import Sequence

from torch import Tensor

from icconv_mm.compat import MODELS, BaseModule, ModuleList
from icconv_mm.errors import InputError


@MODELS.register_module()
class SequenceNeck(BaseModule):
    """Several necks in a row as one neck. mmdet and mmseg accept a list instead; mmpose silently ignores a list.

    The keys of neck i are those below ``neck.necks.i.``.

    Args:
        necks: Configs of the necks, the first of which reads the backbone.
        init_cfg: mmengine initialisation.

    Raises:
        InputError: If ``necks`` is empty or no list of configs.

    Example:
        >>> pconv = dict(type='icconv_mm.PConv', in_channels=8, out_channels=8, num_outs=2)
        >>> neck = SequenceNeck([pconv, pconv])
        >>> [level.shape for level in neck([torch.randn(1, 8, 32, 32), torch.randn(1, 8, 16, 16)])]
        [torch.Size([1, 8, 32, 32]), torch.Size([1, 8, 16, 16])]
    """

    def __init__(self, necks: Sequence[dict], init_cfg: dict | list | None = None):
        super().__init__(init_cfg)
        if not necks:
            raise InputError('SequenceNeck: necks is empty')
        if not (isinstance(necks, Sequence) and all(isinstance(neck, dict) for neck in necks)):
            raise InputError(f'SequenceNeck: necks must be a list of dicts, got {necks!r:.60}')
        self.necks = ModuleList(MODELS.build(neck) for neck in necks)

    def forward(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Runs the necks one after the other on the backbone's maps."""
        for neck in self.necks:
            inputs = neck(inputs)
        return inputs
