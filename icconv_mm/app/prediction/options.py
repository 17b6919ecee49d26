"""The options of a prediction, checked once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from icconv_mm.app.prediction.network import check_batch_size
from icconv_mm.arguments import check_scores
from icconv_mm.errors import ArgumentError
from icconv_mm.files import is_exported

_LEAST_TILE = 32  # pixels; of smaller ones an image has thousands


@dataclass(frozen=True)
class Options:
    """The options of a prediction; each is an argument of :func:`icconv_mm.apis.infer`.

    Raises:
        ArgumentError: One of them cannot be used.
    """

    checkpoint: str
    device: str | None
    score_thr: float | None
    json_score_thr: float
    batch_size: int
    palette: Any
    ann_file: str | None
    draw: bool
    tile: int | None
    workers: int
    to: str | None
    copy: bool
    shard: tuple[int, int] | None
    pick: int | None
    track: bool
    resume: bool
    progress: Callable[[Iterable], Iterable]

    def __post_init__(self) -> None:
        check_scores(score_thr=self.score_thr, json_score_thr=self.json_score_thr)
        check_batch_size(self.batch_size)
        if self.tile is not None and self.tile < _LEAST_TILE:
            raise ArgumentError('tile', f'expected {_LEAST_TILE} pixels or more, got {self.tile}')
        if self.pick is None:
            return
        if self.pick < 1:
            raise ArgumentError('pick', f'expected 1 or more, got {self.pick}')
        if is_exported(self.checkpoint):
            raise ArgumentError('pick', f'{self.checkpoint} has no features to compare images by: give the checkpoint')
        if self.tile is not None:
            raise ArgumentError('pick', 'compares whole images, not tiles: leave one of the two out')
        if self.shard is not None:
            raise ArgumentError('pick', 'compares all images in one process: run it without --shard and torchrun')

    def check_for(self, inputs: str, is_video: bool) -> None:
        """Raises ArgumentError for an option that is for images, if the input is a video, or the other way round."""
        for name in ('ann_file', 'tile', 'to', 'shard', 'pick', 'resume') if is_video else ():
            if getattr(self, name) not in (None, False):
                raise ArgumentError(name, 'is for images, not for a video')
        if self.track and not is_video:
            raise ArgumentError('track', f'is for a video, which {inputs} is not')
