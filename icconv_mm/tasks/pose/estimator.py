"""Bottom-up pose estimator that can be tested at several scales."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
from mmpose.models.necks import FPN
from mmpose.models.pose_estimators import BottomupPoseEstimator
from torch import Tensor, nn
from torch.nn.functional import interpolate

from icconv_mm.errors import InputError
from icconv_mm.registry import MODELS
from icconv_mm.tasks.pose.multiscale import check_scales

_STRIDE = 32  # largest stride of the network: what sides of resized batches are multiples of


@MODELS.register_module()
class FinestFPN(FPN):
    """mmpose's FPN for a head that reads the finest level alone.

    The coarser levels are added to it and not smoothed: a convolution that no loss depends on would stop a distributed
    training, which waits for every gradient. Arguments are those of ``FPN`` without ``num_outs``.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, **settings):
        super().__init__(in_channels, out_channels, num_outs=len(in_channels), **settings)
        for level in range(1, len(self.fpn_convs)):
            self.fpn_convs[level] = nn.Identity()


@MODELS.register_module()
class AEPoseEstimator(BottomupPoseEstimator):
    """``BottomupPoseEstimator`` for batches of images of different sizes and any list of test scales.

    Images of equal size run as one batch, others after each other, so the result does not depend on the batch size.
    Scales run after each other, largest first, and leave only their heatmaps behind.

    ``test_cfg``: ``flip_test`` (False) also runs the flipped image; ``test_scales`` the scales that a batch is resized
    to here; the rest is that of :meth:`AEHead.predict`. Images at several scales come from :class:`MultiScaleResize` in
    the test pipeline, which has an option for the scales.
    """

    def predict(self, inputs: Tensor | Sequence[Sequence[Tensor]], data_samples: list) -> list:
        """Predict from one tuple of [3, H, W] per image, largest scale first, or from a batch [B, 3, H, W].

        Raises:
            InputError: If ``flip_test`` is on and a sample does not say which keypoints are swapped, or if a sample
                has another number of images than of ``test_scales``.
        """
        if isinstance(inputs, Tensor):
            levels = self._resized(inputs, data_samples)
            pyramids = list(zip(*levels))
        else:
            levels, pyramids = None, inputs
        flip = self.test_cfg.get('flip_test', False)
        _check(pyramids, data_samples, flip)
        for indices in _same_size(pyramids, data_samples):
            samples = [data_samples[i] for i in indices]
            # a batch stays the tensor it is: its features may be known already
            whole = levels is not None and len(indices) == len(pyramids)
            batches = levels if whole else map(torch.stack, zip(*(pyramids[i] for i in indices)))
            feats = self._features(batches, flip)
            preds = self.head.predict(feats, samples, test_cfg=self.test_cfg)
            instances, fields = preds if isinstance(preds, tuple) else (preds, None)
            self.add_pred_to_datasample(instances, fields, samples)
        return data_samples

    def _resized(self, batch: Tensor, data_samples: Sequence) -> list[Tensor]:
        """A batch at every scale of ``test_cfg.test_scales``, largest first, or as it is where there are none."""
        if not self.test_cfg.get('test_scales'):
            return [batch]
        scales = check_scales(self.test_cfg['test_scales'])
        for sample in data_samples:
            sample.set_metainfo({'test_scales': scales})
        sizes = [
            [max(_STRIDE, round(side * scale / _STRIDE) * _STRIDE) for side in batch.shape[-2:]] for scale in scales
        ]
        return [
            batch if scale == 1 else interpolate(batch, size, mode='bilinear', align_corners=False)
            for scale, size in zip(scales, sizes)
        ]

    def _features(self, batches: Iterable[Tensor], flip: bool) -> Iterator[tuple]:
        """(features, features of the flipped image or None) of one scale after the other."""
        for batch in batches:
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
            raise InputError(
                f'flip_test needs to know which keypoints are swapped, but {meta.get("img_path")} has no '
                "'flip_indices': add it to the meta_keys of the packing transform and to the dataset's metainfo, or "
                'set model.test_cfg.flip_test=False'
            )
        scales = meta.get('test_scales', (1,))
        if len(pyramid) != len(scales):
            raise InputError(
                f'{meta.get("img_path")} comes at {len(pyramid)} sizes, but its test_scales are '
                f'{list(scales)}: both are written by icconv_mm.MultiScaleResize and packed by '
                'icconv_mm.PackMultiScaleInputs'
            )
