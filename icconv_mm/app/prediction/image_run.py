"""Predicts images: keeps the results of each until those of all are there, and writes the files of all."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from icconv_mm._version import __version__
from icconv_mm.app.prediction.coco_results import results_of
from icconv_mm.app.prediction.network import (
    Network,
    ahead,
    attempt,
    check_tiled,
    predict_each,
    predict_tiles,
    try_predict,
)
from icconv_mm.app.prediction.options import Options
from icconv_mm.app.prediction.pick import pick_images, uncertainty_of, write_picks
from icconv_mm.app.prediction.pre_annotations import folders_for, write_pre_annotations
from icconv_mm.app.runs.images import drawn_names, write_image
from icconv_mm.checkpoints.convert import sha256
from icconv_mm.errors import UserError, message_of, naming
from icconv_mm_runtime.drawing import LONGEST
from icconv_mm_runtime.errors import RuntimeInputError
from icconv_mm_runtime.records import ResultLog, ended_by_sigterm
from icconv_mm_runtime.results import Result


def predict_images(network: Network, paths: Sequence[Path], out: Path, options: Options) -> dict[str, Path]:
    """Predicts the images of this process, and writes the files of all if it is the last one; returns their paths.

    Raises:
        FailedImagesError: Some images cannot be read or predicted; the results of the others are written.
        InputError: An option does not fit the network, or a file cannot be written.
    """
    run = _ImageRun(network, paths, out, options)
    with ended_by_sigterm():
        failures = run.predict()
        written = run.write(not failures)
    if failures:
        raise FailedImagesError(failures, len(run.log.share()), out)
    return written


class FailedImagesError(UserError):
    """Raised if some images could not be read or predicted; the results of the others are written.

    Attributes:
        failures: The exception of each image.
    """

    def __init__(self, failures: Mapping[Path, Exception], total: int, out: Path) -> None:
        texts = {path: ' '.join(message_of(error).split()) for path, error in failures.items()}
        lines = [text if text.startswith(str(path)) else f'{path}: {text}' for path, text in texts.items()]
        rest = f'{len(lines)} of {total} images failed; the results of the others are in {out}:'
        super().__init__('\n'.join([rest, *(f'  {line}' for line in lines)]) if total > 1 else lines[0])
        self.failures = dict(failures)


class _ImageRun:
    """Predicts images, and keeps their results until those of all are there.

    Attributes:
        results: The results of all tasks, as COCO writes them.
        log: The results of the images of this process, on the disk.
        names: The file name of each drawn image; empty if none is drawn.
        folders: Folders of annotations for another tool, by task.
    """

    def __init__(self, network: Network, paths: Sequence[Path], out: Path, options: Options) -> None:
        self.network, self.out, self.options = network, out, options
        if options.pick is not None:
            network.keep_features()
        self.results = results_of(network.descriptions, options.json_score_thr, paths, options.ann_file)
        if options.tile is not None:
            check_tiled(network.descriptions)
        self.names = drawn_names(paths) if options.draw else {}
        self.folders = folders_for(options.to, self.results.parts, out) if options.to else {}
        drawing = [options.draw, options.score_thr, options.palette, options.to, options.pick]
        others = [options.json_score_thr, options.ann_file, options.tile, options.batch_size, network.settings]
        files = Path(options.checkpoint), Path(options.checkpoint).with_suffix('.bin'), Path(options.ann_file or '')
        with naming(str(out), OSError, RuntimeInputError):
            hashes = [sha256(path) for path in files if path.is_file()]  # the second one: OpenVINO's weights
            settings = [__version__, *drawing, *others, *hashes]
            self.log = ResultLog(out, settings, paths, options.shard or (1, 1), options.resume)
        if options.resume and not self.log.done and self.log.has_others:
            what = 'what an earlier run left there was of other images, weights or options: this one begins anew'
            print_log(f'{out / ".results"}: {what}', 'current', logging.WARNING)

    def predict(self) -> dict[Path, Exception]:
        """Adds the results of the images of this process to the log; returns the exceptions of those that fail."""
        failures: dict[Path, Exception] = {}
        numbers = {path: number for number, path in enumerate(self.log.share()) if str(path) not in self.log.done}
        samples = zip(self.options.progress(list(numbers)), self._samples(list(numbers)))
        try:
            for path, sample, result in ahead(self._drawn, samples, self.options.workers):
                if isinstance(result, Exception):
                    failures[path] = result
                else:
                    row = self._row(path, sample, result)
                    with naming(str(self.out), OSError):
                        self.log.add(numbers[path], path, row)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and self.log.count == 1 and any(self.log.rows()):
                self.results.write(self.out, self.log.rows)
                done, count = sum(1 for _ in self.log.rows()), len(self.log.share())
                what = f'only the results of {done} of {count} images are in {self.out}; --resume goes on'
                print_log(what, 'current')
            self.log.close(is_written=False)
            raise
        if len(failures) == len(numbers) > 0 and not any(isinstance(error, UserError) for error in failures.values()):
            self.log.close(is_written=False)
            raise next(iter(failures.values()))  # not the fault of the images
        return failures

    def _samples(self, paths: Sequence[Path]) -> Iterator[Any]:
        """Yields what the network finds in each image, or its exception."""
        options = self.options
        if options.tile is not None:
            return (attempt(predict_tiles, self.network, path, options.tile) for path in paths)
        return (sample for _, sample in try_predict(self.network, paths, options.batch_size, options.workers))

    def _drawn(self, result: tuple[Path, Any]) -> tuple[Path, Any, Result | Exception]:
        """Returns an image, what the network finds in it, and its result, which is drawn; or an exception."""
        path, sample = result
        return path, sample, sample if isinstance(sample, Exception) else attempt(self._draw, path, sample)

    def _draw(self, path: Path, sample: Any) -> Result:
        is_of_tiles, longest = isinstance(sample, Result), LONGEST if self.names else 0
        result = sample if is_of_tiles else self.network.result(path, sample, longest)
        if self.names:
            write_image(result.plot(self.options.score_thr), self.out / 'vis' / self.names[path])
        return result

    def _row(self, path: Path, sample: Any, result: Result) -> dict[str, Any]:
        """Returns what is kept of an image, as JSON can hold it."""
        number, options = self.results.image_ids[path], self.options
        row = self.results.row(number, path.name, result)
        chosen = (part for part in self.results.parts if part.name in self.folders)
        row['drawn'] = {part.name: part.drawn(number, result, options.score_thr) for part in chosen}
        if options.pick is not None:
            unsure = uncertainty_of({name: adapter for name, (adapter, _) in self.network.parts.items()}, sample)
            row |= {'uncertainty': float(unsure), 'features': np.asarray(sample.features, float).tolist()}
        return row

    def write(self, is_complete: bool) -> dict[str, Path]:
        """Writes the files of all images if this process is the last one; returns their paths."""
        written = {'vis': self.out / 'vis'} if self.names and any(self.log.rows()) else {}
        is_last = False
        try:
            if not (is_last := self.log.finish(is_complete)):
                there = f'{self.log.count_there()} of {self.log.count} parts are there'
                print_log(f'{there}; the last one writes the files', 'current')
                return written
            if any(self.log.rows()):
                written |= self.results.write(self.out, self.log.rows) | self._write_others()
        finally:
            self.log.close(is_last)
        return written

    def _write_others(self) -> dict[str, Path]:
        """Writes the picked images and the annotations for another tool."""
        written, rows, options = {}, self.log.rows, self.options
        if options.pick is not None:
            unsure = {Path(row['path']): (row['uncertainty'], np.array(row['features'])) for row in self.log.rows()}
            chosen = [list(unsure)[k] for k in pick_images(*map(np.stack, zip(*unsure.values())), options.pick)]
            again = (self.network.result(*pair, LONGEST) for pair in predict_each(self.network, chosen))
            drawings = (result.plot(options.score_thr) for result in again)
            written |= write_picks(self.out, [(path, unsure[path][0]) for path in chosen], drawings)
            picked = {str(path): rank for rank, path in enumerate(chosen)}
            kept = sorted((row for row in rows() if row['path'] in picked), key=lambda row: picked[row['path']])
            rows = partial(iter, kept)
        for part in self.results.parts:
            folder = self.folders.get(part.name)
            if folder is not None and write_pre_annotations(options.to, part, rows, folder, options.copy):
                written[folder.name] = folder
        return written
