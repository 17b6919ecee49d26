"""Bottom-up pose estimator that can be tested at several scales."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from mmpose.models.pose_estimators import BottomupPoseEstimator
from torch import Tensor

from icconv_mm.registry import MODELS


@MODELS.register_module()
class AEPoseEstimator(BottomupPoseEstimator):
    """``BottomupPoseEstimator`` for image pyramids: batches of images of different sizes, any list of test scales.

    Images of equal size run as one batch, others after each other, so the result does not depend on the batch size.
    Scales run after each other, largest first, and leave only their heatmaps behind.

    ``test_cfg``: ``flip_test`` (False) also runs the mirrored image; the rest is that of :meth:`AEHead.predict`. The
    scales themselves are an option of :class:`PyramidResize` in the test pipeline.
    """

    def predict(self, inputs: Tensor | Sequence[Sequence[Tensor]], data_samples: list) -> list:
        """Predict from one tuple of [3, H, W] per image, largest scale first, or from a batch [B, 3, H, W].

        Raises:
            ValueError: If ``flip_test`` is on and a sample does not say which joints are swapped, or if a sample has
                another number of images than of ``test_scales``.
        """
        pyramids = [(image,) for image in inputs] if isinstance(inputs, Tensor) else inputs
        flip = self.test_cfg.get('flip_test', False)
        _check(pyramids, data_samples, flip)
        for indices in _same_size(pyramids, data_samples):
            samples = [data_samples[i] for i in indices]
            feats = self._features([pyramids[i] for i in indices], flip)
            preds = self.head.predict(feats, samples, test_cfg=self.test_cfg)
            instances, fields = preds if isinstance(preds, tuple) else (preds, None)
            self.add_pred_to_datasample(instances, fields, samples)
        return data_samples

    def _features(self, pyramids: Sequence[Sequence[Tensor]], flip: bool) -> Iterator[tuple]:
        """(features, features of the mirrored image or None) of one scale after the other."""
        for level in zip(*pyramids):
            batch = torch.stack(level)
            yield self.extract_feat(batch), self.extract_feat(batch.flip(-1)) if flip else None


def _same_size(pyramids: Sequence[Sequence[Tensor]], data_samples: Sequence) -> list[list[int]]:
    """Indices of the images that share the sizes of all levels, and what the head resizes the maps to.

    Levels of one size may belong to two base sizes, where a level went to the nearest multiple of the stride.
    """
    groups = defaultdict(list)
    for index, (pyramid, sample) in enumerate(zip(pyramids, data_samples)):
        base = tuple(sample.metainfo['input_size']), tuple(sample.metainfo.get('test_scales', (1,)))
        groups[(base, *(level.shape for level in pyramid))].append(index)
    return list(groups.values())


def _check(pyramids: Sequence[Sequence[Tensor]], data_samples: Sequence, flip: bool) -> None:
    for pyramid, meta in zip(pyramids, (sample.metainfo for sample in data_samples)):
        if flip and meta.get('flip_indices') is None:
            raise ValueError(
                f'flip_test needs to know which joints are swapped, but {meta.get("img_path")} has no '
                "'flip_indices': add it to the meta_keys of the packing transform and to the dataset's metainfo, or "
                'set model.test_cfg.flip_test=False'
            )
        scales = meta.get('test_scales', (1,))
        if len(pyramid) != len(scales):
            raise ValueError(
                f'{meta.get("img_path")} comes at {len(pyramid)} sizes, but its test_scales are '
                f'{list(scales)}: both are written by icconv_mm.PyramidResize and packed by icconv_mm.PackPyramidInputs'
            )
