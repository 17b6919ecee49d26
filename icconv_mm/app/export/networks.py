"""A whole network as one exportable module, from pixels to the tensors that the runtime decodes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from icconv_mm.app.export import operators
from icconv_mm.datasets.reading import no_garbage_search
from icconv_mm.errors import InputError
from icconv_mm.tasks.libraries import library_of


class Exported(nn.Module):
    """Maps pixels to a tuple with the outputs of all tasks.

    Args:
        model: The model, in evaluation mode or deployed.
        metas: Class metadata of each task for its library, by task name; '' for a single task.
        scales: Scales of the input images, for pose estimators.

    Attributes:
        parts: The outputs of each task, in order.
        sized: Whether there is an input ``size``, because images may be smaller than the input or boxes are scaled.

    Raises:
        InputError: The network or a part of it cannot be exported.
    """

    def __init__(self, model: nn.Module, metas: Mapping[str, dict], scales: Sequence[float]):
        super().__init__()
        self.model, self.scales, self.tasks, self.sized = model, scales, list(metas), True
        networks = {'': (model, 'model')}
        if '' not in metas:
            networks = {name: (task, f'model.tasks.{name}') for name, task in model.tasks.items()}
        self.parts = nn.ModuleList(_outputs(*networks[name], meta, scales) for name, meta in metas.items())
        self.several = '' not in metas
        preprocessor = model.data_preprocessor
        spellings = ('_channel_conversion', 'channel_conversion', 'to_rgb')  # of mmengine, mmseg, mmpretrain
        self.swaps = any(getattr(preprocessor, name, False) for name in spellings)
        for name in ('mean', 'std'):
            value = getattr(preprocessor, name, None) if preprocessor._enable_normalize else None
            self.register_buffer(name, None if value is None else value.detach().clone().view(1, -1, 1, 1))

    @property
    def names(self) -> list[str]:
        """Returns the names of the outputs, in order."""
        prefixes = [f'{name}.' if name else '' for name in self.tasks]
        return [f'{prefix}{name}' for prefix, part in zip(prefixes, self.parts) for name in part.names]

    def forward(self, images: list[Tensor], size: Tensor | None = None) -> tuple[Tensor, ...]:
        """Takes pixels 0 to 255 ``[N, 3, H, W]``, per scale, and ``[N, 4]``: valid height, width, inverse scale."""
        levels = [self._normalised(image, size) for image in images]
        first = levels[0] if len(levels) == 1 else levels
        if not self.several:
            return self.parts[0](first, size)
        outputs: list[Tensor] = []
        with self.model._memory.holding(first, self.model._compute(first)):
            for part in self.parts:
                outputs += part(first, size)
        return tuple(outputs)

    def _normalised(self, image: Tensor, size: Tensor | None) -> Tensor:
        image = (image.flip(1) if self.swaps else image).float()
        if self.mean is not None:
            image = (image - self.mean) / self.std
        if size is None:
            return image
        # the libraries pad with zeros after the normalisation; a product is for runtimes without booleans
        rows, columns = (torch.arange(side, dtype=image.dtype, device=image.device) for side in image.shape[-2:])
        inside = [(size[:, axis : axis + 1] - positions).clamp(0, 1) for axis, positions in enumerate((rows, columns))]
        return image * inside[0][:, None, :, None] * inside[1][:, None, None]


def _outputs(network: nn.Module, where: str, meta: dict, scales: Sequence[float]) -> nn.Module:
    library = library_of(type(network))
    if library == 'mmpose':
        from icconv_mm.app.export.pose import outputs_of

        return outputs_of(network, where, meta, scales)
    if library == 'mmdet':
        from icconv_mm.app.export.detection import DetectorOutputs as Outputs
    elif library == 'mmseg':
        from icconv_mm.app.export.classes import SegmentorOutputs as Outputs
    elif library == 'mmpretrain':
        from icconv_mm.app.export.classes import ClassifierOutputs as Outputs
    else:
        raise InputError(f'{where}: {type(network).__name__} is of no library whose networks can be exported')
    return Outputs(network, where)


@no_garbage_search()
def capture(network: Exported, example: tuple, free: Sequence[int]) -> torch.export.ExportedProgram:
    """Returns the network as a program of ``torch.export``.

    Args:
        network: The network.
        example: Arguments of the network.
        free: Axes of the images that are free: batch (0), height (2), width (3); others are fixed to the example's.

    Raises:
        InputError: Its code has operations that a program cannot hold; the message names the location.
    """
    image = dict.fromkeys(free, torch.export.Dim.DYNAMIC)
    size = {axis: dim for axis, dim in image.items() if axis == 0}
    shapes = ([image] * len(example[0]), *(size for _ in example[1:]))
    network.requires_grad_(False)
    try:
        with torch.no_grad(), _standard_operators(), operators.any_remainder():
            return torch.export.export(network, example, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # the network's code can raise anything
        said = ' '.join(str(error).split())[:300]
        raise InputError(f'torch.export cannot capture this network ({type(error).__name__}: {said})') from error


@contextmanager
def _standard_operators() -> Iterator[None]:
    """Replaces adaptive pooling by operators that every runtime has, for maps of any size."""
    functional, name = torch.nn.functional, 'adaptive_avg_pool2d'  # PSP heads call it by name
    before = getattr(functional, name)
    setattr(functional, name, operators.adaptive_mean)
    try:
        yield
    finally:
        setattr(functional, name, before)
