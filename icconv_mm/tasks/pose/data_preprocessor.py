"""Normalisation of a batch whose images differ in size and come at several scales."""

from mmpose.models.data_preprocessors import PoseDataPreprocessor
from torch import Tensor

from icconv_mm._deprecated import register_old_types
from icconv_mm.registry import MODELS


@MODELS.register_module()
class MultiScaleDataPreprocessor(PoseDataPreprocessor):
    """``PoseDataPreprocessor`` that also takes images at several scales, as :class:`PackMultiScaleInputs` packs them.

    Training batches (images of one size) go the usual way. Images for testing are not padded to a common size, which
    would change their heatmaps; they come out as a tuple with one tuple of normalised [3, H, W] per image, largest
    scale first.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise ``data['inputs']``: collated images, or a list over scales of lists of images."""
        inputs = data['inputs']
        if isinstance(inputs, Tensor) or isinstance(inputs[0], Tensor):
            return super().forward(data, training)
        data = self.cast_data(data)
        # From scales of images to images of scales; tuples, as ``BasePoseEstimator.forward`` stacks what is in a list.
        images = tuple(tuple(map(self._normalize, levels)) for levels in zip(*data['inputs']))
        return {'inputs': images, 'data_samples': data['data_samples']}

    def _normalize(self, image: Tensor) -> Tensor:
        if self._channel_conversion:
            image = image.flip(0)
        image = image.float()
        return (image - self.mean) / self.std if self._enable_normalize else image


register_old_types(MODELS, PyramidDataPreprocessor=MultiScaleDataPreprocessor)
