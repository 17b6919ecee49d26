"""Runs the dilation search on files: reads a supernet checkpoint, writes a pattern file and an initial checkpoint."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcv
import torch
from mmengine.config import Config
from torch import Tensor, nn

from icconv_mm.app.runs.begin import TaskRun, begin
from icconv_mm.checkpoints.convert import checked_weights, read_checkpoint, sha256, write_checkpoint
from icconv_mm.checkpoints.matching import check_fits
from icconv_mm.datasets.loading import LoadImageFromFile, find_images
from icconv_mm.errors import InputError, naming
from icconv_mm.patterns import write_patterns
from icconv_mm.patterns.load import rf_next_patterns
from icconv_mm.patterns.pattern import DilationPattern
from icconv_mm.patterns.search import LayerResult, inherit_taps, measure_channel_means, search_layers
from icconv_mm.patterns.supernet import LayerFilter


@dataclass(frozen=True)
class SearchedCheckpoint:
    """What the search has found in a supernet checkpoint.

    Attributes:
        results: One result per layer.
        weights: The supernet's weights.
        origin: File, hash and settings of the search.
    """

    results: list[LayerResult]
    weights: Mapping[str, Tensor]
    origin: dict[str, Any]

    def write(self, pattern_out: str | Path, checkpoint_out: str | Path | None = None) -> None:
        """Writes the dilations.

        Args:
            pattern_out: The pattern file. Without ``checkpoint_out`` the channels of a layer are sorted by dilation, as
                in the published patterns; with it the pattern is that of the written checkpoint.
            checkpoint_out: An initial checkpoint of the searched network, which inherits the kept taps.

        Raises:
            InputError: A file cannot be written.
        """
        for path in (pattern_out, checkpoint_out):  # makes both folders before either file is written
            if path is not None:
                _make_folder_of(path)
        patterns = [result.pattern(sort=True) for result in self.results]
        if checkpoint_out is not None:
            patterns, state = inherit_taps(self.weights, self.results)
            meta = {'searched_from': self.origin, 'pattern': [pattern.to_json() for pattern in patterns]}
            write_checkpoint({'state_dict': state, 'meta': meta}, checkpoint_out)
        write_patterns(patterns, pattern_out)


def search_checkpoint(
    checkpoint: str | Path,
    d_max: int,
    *,
    criterion: str = 'rms',
    filter: LayerFilter = None,
    groups: int = 1,
    network: nn.Module | TaskRun | Config | str | Path | None = None,
    images: Iterable[Tensor] | None = None,
    align: int | None = None,
) -> SearchedCheckpoint:
    """Searches the dilations of a supernet checkpoint.

    Args:
        checkpoint: The supernet's weights, in any supported wrapping.
        d_max: Largest dilation that the supernet was built with.
        criterion: ``'rms'``, ``'expectation'`` or ``'kept_mass'``, see ``icconv_mm.patterns.search``.
        filter: Selects layers, as for ``edo_search``.
        groups: Groups of the convolutions, needed where no network is given; 1 by default.
        network: The network of these weights, which are loaded into it; or its run or config, changed in place, or the
            config's file. It is needed for ``images`` and for layers of different groups.
        images: Batches [N, 3, H, W] in the network's normalisation, for measuring the channel means.
        align: Channels in a block, of which all runs are multiples: see ``edo_search``.

    Raises:
        MissingFileError: The checkpoint does not exist.
        InputError: As ``edo_search``, naming the file as well; or the weights do not fit the network.
    """
    content = read_checkpoint(checkpoint)
    model = network if network is None or isinstance(network, nn.Module) else begin(network).build_model()
    with naming(str(checkpoint)):
        state, means = checked_weights(content), None
        if model is not None:
            check_fits(model, state, str(checkpoint))
            model.load_state_dict(state, strict=False)
            state = model.state_dict()
        if images is not None:
            if model is None:
                raise InputError('channel means are measured in a network: give it beside the images')
            # the name in all task libraries; modules after the necks need no means
            means = measure_channel_means(model, images, filter, getattr(model, 'extract_feat', model))
        searched = state if model is None else model
        results = search_layers(searched, d_max, criterion, means, filter, groups, align)
    origin = {'file': Path(checkpoint).name, 'sha256': sha256(checkpoint), 'd_max': d_max, 'criterion': criterion}
    return SearchedCheckpoint(results, state, origin)


def convert_rf_next(
    structure: str | Path, cfg: TaskRun | Config | str | Path, pattern_out: str | Path, filter: LayerFilter = None
) -> dict[str, DilationPattern]:
    """Writes the result of mmcv's ``RFSearchHook`` as a pattern file.

    Args:
        structure: A ``local_search_config_stepN.json`` of the search.
        cfg: The run or the config that was searched, or its file; changed in place.
        pattern_out: The pattern file.
        filter: Selects layers of the backbone, as for ``edo_search``.

    Returns:
        The pattern of each layer by its name, including layers that were not searched.

    Raises:
        MissingFileError, InputError: As ``rf_next_patterns``, or the config's model cannot be built. Nothing is written
            then.
    """
    patterns = rf_next_patterns(structure, begin(cfg).build_model(), filter)
    _make_folder_of(pattern_out)
    write_patterns(list(patterns.values()), pattern_out)
    return patterns


def _make_folder_of(path: str | Path) -> None:
    with naming(str(path), OSError):
        Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)


def read_images(folder: str | Path, cfg: Config, longest: int = 512) -> Iterator[Tensor]:
    """Yields the images of a folder as inputs of the config's network: batches [1, 3, H, W], normalised.

    Args:
        folder: The folder, searched with subfolders, in the order of paths.
        cfg: A config whose data preprocessor has mean, standard deviation and channel order.
        longest: Longer sides are scaled down to this many pixels.

    Raises:
        MissingFileError, ImageFileError: There is no image, or one of them cannot be read.
    """
    paths = find_images(folder, recursive=True)
    settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    rgb = settings.get('bgr_to_rgb', settings.get('to_rgb', False))
    mean, std = (torch.tensor(settings.get(key) or [default] * 3) for key, default in (('mean', 0.0), ('std', 1.0)))
    load = LoadImageFromFile()
    for path in paths:
        image = load({'img_path': str(path)})['img']
        if max(image.shape[:2]) > longest:
            image = mmcv.imrescale(image, (longest, longest))
        pixels = torch.from_numpy(image).permute(2, 0, 1).float()
        pixels = pixels.flip(0) if rgb else pixels
        yield ((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))[None]
