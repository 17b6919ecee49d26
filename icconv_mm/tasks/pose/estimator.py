"""Bottom-up pose by associative embedding: the estimator, with multi-scale testing, and its head."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
from mmengine.structures import PixelData
from mmpose.models.heads import AssociativeEmbeddingHead
from mmpose.models.necks import FPN
from mmpose.models.pose_estimators import BottomupPoseEstimator
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.rnn import pad_sequence

from icconv_mm.errors import InputError
from icconv_mm.registry import MODELS
from icconv_mm.tasks.pose.multiscale import MapAggregator, check_scales, tag_scale

_STRIDE = 32  # largest stride of the network: sides of resized batches are its multiples


@MODELS.register_module()
class FinestFPN(FPN):
    """mmpose's FPN for a head that reads only the finest level.

    The coarser levels are added to it but not smoothed: a convolution without a loss would stop distributed training,
    which waits for every gradient. Arguments are those of ``FPN`` without ``num_outs``.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, **settings):
        super().__init__(in_channels, out_channels, num_outs=len(in_channels), **settings)
        for level in range(1, len(self.fpn_convs)):
            self.fpn_convs[level] = nn.Identity()


@MODELS.register_module()
class AEPoseEstimator(BottomupPoseEstimator):
    """``BottomupPoseEstimator`` for batches of images of different sizes and any list of test scales.

    Images of equal size run as one batch, others one after another, so the result does not depend on the batch size.
    Scales run one after another, largest first, and only their heatmaps are kept.

    ``test_cfg``: ``flip_test`` (False) also runs the flipped image; ``test_scales`` are the scales to which batches are
    resized here; other options are those of :meth:`AEHead.predict`. Images at several scales come from
    :class:`MultiScaleResize` in the test pipeline, which has an option for the scales.
    """

    def predict(self, inputs: Tensor | Sequence[Sequence[Tensor]], data_samples: list) -> list:
        """Predicts from one tuple of [3, H, W] per image, largest scale first, or from a batch [B, 3, H, W].

        Raises:
            InputError: If ``flip_test`` is on and a sample lacks the keypoints that a flip swaps, or if a sample has
                another number of images than of ``test_scales``.
        """
        if isinstance(inputs, Tensor):
            levels = self._resized(inputs, data_samples)
            pyramids = list(zip(*levels))
        else:
            levels, pyramids = None, inputs
        flip = self.test_cfg.get('flip_test', False)
        _check_flips(pyramids, data_samples, flip)
        for indices in _same_size(pyramids, data_samples):
            samples = [data_samples[i] for i in indices]
            # a batch stays the same tensor: its features may be cached
            whole = levels is not None and len(indices) == len(pyramids)
            batches = levels if whole else map(torch.stack, zip(*(pyramids[i] for i in indices)))
            preds = self.head.predict(self._features(batches, flip), samples, test_cfg=self.test_cfg)
            instances, fields = preds if isinstance(preds, tuple) else (preds, None)
            self.add_pred_to_datasample(instances, fields, samples)
        return data_samples

    def _resized(self, batch: Tensor, data_samples: Sequence) -> list[Tensor]:
        """Returns a batch at every scale of ``test_cfg.test_scales``, largest first, or as it is if none are set."""
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
        """Yields (features, features of the flipped image or None) for one scale after another."""
        for batch in batches:
            yield self.extract_feat(batch), self.extract_feat(batch.flip(-1)) if flip else None


def _same_size(pyramids: Sequence[Sequence[Tensor]], data_samples: Sequence) -> list[list[int]]:
    """Groups the indices of images that share the sizes of all levels and the size to which the head resizes maps.

    Levels of one size may have two base sizes, if a level was rounded to the nearest multiple of the stride.
    """
    groups = defaultdict(list)
    for index, (pyramid, sample) in enumerate(zip(pyramids, data_samples)):
        base = tuple(sample.metainfo['input_size']), tuple(sample.metainfo.get('test_scales', (1,)))
        groups[(base, *(level.shape for level in pyramid))].append(index)
    return list(groups.values())


def _check_flips(pyramids: Sequence[Sequence[Tensor]], data_samples: Sequence, flip: bool) -> None:
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


@MODELS.register_module()
class AEHead(AssociativeEmbeddingHead):
    """Deconvolutions, then one 1x1 convolution to a heatmap and a tag map per keypoint.

    The layers, their keys and their initialisation are mmpose's (``deconv_layers``, ``final_layer``); losses and
    prediction are not: see docs/pose.md.

    Args:
        in_channels: Channels of the feature map.
        num_keypoints: Number of keypoints K.
        in_index: Index of the feature map to read; -1 is the coarsest of a backbone, 0 the finest of a pyramid.
        keypoint_loss: Config of the heatmap loss, called with (heatmaps, targets, mask).
        tag_loss: Config of the tag loss, called with (tags, indices); returns (push, pull).
        **kwargs: Arguments of mmpose's ``AssociativeEmbeddingHead``: deconv_out_channels, decoder (the codec) ...
    """

    def __init__(
        self,
        in_channels: int,
        num_keypoints: int,
        in_index: int = -1,
        keypoint_loss: dict = dict(type='icconv_mm.MaskedHeatmapLoss'),  # noqa: B006
        tag_loss: dict = dict(type='icconv_mm.TagLoss'),  # noqa: B006
        **kwargs,
    ):
        super().__init__(in_channels, num_keypoints, keypoint_loss=keypoint_loss, tag_loss=tag_loss, **kwargs)
        if self.tag_dim != 1:
            raise InputError(f'AEHead: tag_dim must be 1 (one tag map per keypoint), got {self.tag_dim}')
        self.in_index = in_index

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns heatmaps [B, K, h, w] and tags [B, K, h, w] (or [B, 1, h, w] if all keypoints share one map)."""
        return super().forward([feats[self.in_index]])

    def loss(self, feats: Sequence[Tensor], batch_data_samples: Sequence, train_cfg: dict | None = None) -> dict:
        """Returns ``loss_kpt``, ``loss_push`` and ``loss_pull``, averaged over the batch.

        Raises:
            InputError: If the targets have another number of keypoints or another size than the output.
        """
        heatmaps, tags = self.forward(feats)
        targets = torch.stack([sample.gt_fields.heatmaps for sample in batch_data_samples])
        if targets.shape != heatmaps.shape:
            raise InputError(
                f'the head predicts heatmaps of shape {list(heatmaps.shape[1:])} (keypoints, height, width), but the '
                f'targets have {list(targets.shape[1:])}; check num_keypoints, the annotations and heatmap_size'
            )
        mask = torch.cat([sample.gt_fields.heatmap_mask for sample in batch_data_samples])
        indices = pad_sequence([sample.gt_instance_labels.keypoint_indices for sample in batch_data_samples], True)
        # In float32 also under autocast: the squares and exponentials of tags need its range.
        tags = tags.float().expand(-1, self.num_keypoints, -1, -1)
        push, pull = self.loss_module.tag_loss(tags, indices)
        return dict(
            loss_kpt=self.loss_module.keypoint_loss(heatmaps.float(), targets, mask), loss_push=push, loss_pull=pull
        )

    def predict(
        self,
        feats: Iterable[tuple[Sequence[Tensor], Sequence[Tensor] | None]],
        batch_data_samples: Sequence,
        test_cfg: dict | None = None,
    ) -> list | tuple[list, list]:
        """Merges the maps of all test scales and decodes the people.

        Args:
            feats: One (features, features of the flipped image or None) per scale, in the order of the samples'
                ``test_scales``. An iterator is advanced one scale at a time, so that only one is in memory.
            batch_data_samples: Samples of one ``input_size`` and with the same ``test_scales``.
            test_cfg: ``restore_heatmap_size`` (True): decode at the resolution of the input at scale 1, as the
                published models were tested, rather than at that of the network's output; ``align_corners`` (False);
                ``output_heatmaps`` (False): return the merged maps as well.

        Returns:
            One ``InstanceData`` per image with ``keypoints`` [P, K, 2] in input pixels, ``keypoint_scores`` [P, K] and
            ``bbox_scores`` [P]; with ``output_heatmaps`` also a list of ``PixelData``.

        Raises:
            InputError: If the samples differ in ``input_size``, or in number of scales from ``feats``.
        """
        test_cfg = test_cfg or {}
        sizes = {tuple(sample.metainfo['input_size']) for sample in batch_data_samples}
        if len(sizes) > 1:
            raise InputError(f'AEHead: samples of one batch must have one input_size, got {sorted(sizes)}')
        meta = batch_data_samples[0].metainfo
        heatmaps, tags = self.merge(feats, meta, test_cfg)
        instances = self.decode((heatmaps, tags, meta['input_size']))
        if not test_cfg.get('output_heatmaps', False):
            return instances
        maps = zip(heatmaps, tags.permute(0, 1, 4, 2, 3).flatten(1, 2))
        return instances, [PixelData(heatmaps=heatmap, tags=tag) for heatmap, tag in maps]

    def merge(self, feats: Iterable, meta: dict, test_cfg: dict) -> tuple[Tensor, Tensor]:
        """Merges the maps of all test scales, from which :meth:`predict` decodes the people; a head may override it.

        Args:
            feats: Features by scale, as in :meth:`predict`; each is read once.
            meta: Meta information shared by the batch: ``input_size``, and ``test_scales`` and ``flip_indices`` if
                used.
            test_cfg: Settings as in :meth:`predict`.

        Returns:
            Heatmaps [B, K, H, W] and tags [B, K, H, W, L] (L includes the flipped image, if used), float32.

        Raises:
            InputError: If ``feats`` has another number of scales than ``meta``.
        """
        project = test_cfg.get('restore_heatmap_size', True)
        aggregator = MapAggregator(meta['input_size'] if project else None, test_cfg.get('align_corners', False))
        scales = meta.get('test_scales', (1,))
        count = 0
        for count, ((heatmaps, tags), (flipped_heatmaps, flipped_tags)) in enumerate(self._maps(feats), start=1):
            if count > len(scales):
                break
            if scales[count - 1] != tag_scale(scales):
                tags = flipped_tags = None
            aggregator.add(heatmaps, tags, flipped_heatmaps, flipped_tags, meta.get('flip_indices'))
        if count != len(scales):
            given = count if count < len(scales) else f'more than {len(scales)}'
            raise InputError(f'AEHead: expected features of {len(scales)} scales, {list(scales)}, got {given}')
        return aggregator.result()

    def _maps(self, feats: Iterable) -> Iterable:
        """Yields per scale ([heatmaps], [tags]) of the image and of the flipped one, keeping no features."""
        for image, flipped in feats:
            maps = [tuple([output.float()] for output in self.forward(image)), (None, None)]
            del image
            if flipped is not None:
                maps[1] = tuple([output.float()] for output in self.forward(flipped))
            del flipped
            yield maps
