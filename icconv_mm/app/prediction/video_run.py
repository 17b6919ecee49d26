"""Predicts the frames of a video or a camera, and writes a video of the drawn ones."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from mmengine.logging import print_log

from icconv_mm.app.prediction.coco_results import results_of
from icconv_mm.app.prediction.network import Network, predict_each
from icconv_mm.app.prediction.options import Options
from icconv_mm.app.prediction.tracking import Tracker
from icconv_mm.app.runs.images import Video, VideoWriter
from icconv_mm.errors import InputError
from icconv_mm_runtime.drawing import LONGEST
from icconv_mm_runtime.files import write_together
from icconv_mm_runtime.records import ResultLog, ended_by_sigterm


def predict_video(network: Network, video: Video, out: Path, options: Options) -> dict[str, Path]:
    """Predicts the frames of a video, numbered from 1, and returns the written paths by name. Ctrl-C ends a camera.
    Of a file that it ends early, results are written as well.

    Raises:
        InputError: A frame cannot be predicted, or no frame can be read.
        KeyboardInterrupt: Ctrl-C or SIGTERM ended a file early.
        ArgumentError: No task has boxes to track.
    """
    results = results_of(network.descriptions, options.json_score_thr)
    if options.track:
        results = results.tracked(partial(Tracker, rate=video.rate, score_thr=options.score_thr))
    log, file = ResultLog(out, [video.name]), f'{video.name}.mp4'
    with ExitStack() as closing:
        closing.callback(log.discard)
        writer = None
        if options.draw:
            writer = VideoWriter(closing.enter_context(write_together(out, [file])) / file, video.rate)
        count, is_cut = 0, False
        try:
            with ended_by_sigterm():
                for frame, sample in predict_each(network, options.progress(video), options.batch_size):
                    result = network.result(frame, sample, LONGEST if writer else 0)
                    log.add(count, frame.path, results.row(count + 1, frame.path.name, result))
                    count += 1
                    if writer:
                        writer.add(result.plot(options.score_thr))
        except KeyboardInterrupt:
            is_cut = video.frames is not None  # a stream has no other end
            print_log(f'ended after {count} frames', 'current')
        finally:
            if writer:
                writer.close()
        if not count:
            raise InputError(f'{video.name}: no frame can be read')
        written = {'vis': out / file} if options.draw else {}
        written |= results.write(out, log.rows)
    if is_cut:
        raise KeyboardInterrupt
    return written
