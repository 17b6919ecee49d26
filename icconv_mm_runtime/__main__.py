"""Predicts on images with an exported network: writes drawn images and COCO results, without torch.

Examples:
  python -m icconv_mm_runtime network.onnx images/ --out-dir found
  python -m icconv_mm_runtime network.onnx rtsp://camera/stream --out-dir found --max-images 1000
  python -m icconv_mm_runtime network.onnx --benchmark --device cuda
  python -m icconv_mm_runtime network.onnx --web page --serve
"""

if __name__ == '__main__':
    from icconv_mm_runtime import interrupts

    interrupts.await_interrupts()

from icconv_mm_runtime import process

if __name__ == '__main__':
    process.begin_process()

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from icconv_mm_runtime.coco import write_results
from icconv_mm_runtime.drawing import encoded, file_name
from icconv_mm_runtime.errors import RuntimeInputError, printable, refusing
from icconv_mm_runtime.extra import web
from icconv_mm_runtime.files import write_bytes
from icconv_mm_runtime.images import is_stream
from icconv_mm_runtime.records import ResultLog, ended_by_sigterm
from icconv_mm_runtime.results import Result
from icconv_mm_runtime.session import Session

_RUN = ('file', 'images', 'batch_size', 'threads', 'device')
# The arguments that each of the three uses of the command reads; others would have no effect.
_READ = {
    'web': ('file', 'web', 'single_file', 'serve'),
    'benchmark': (*_RUN, 'benchmark'),
    'out_dir': (*_RUN, 'out_dir', 'score_thr', 'json_score_thr', 'tile', 'max_images', 'draw'),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog='python -m icconv_mm_runtime',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument('file', help='what tools/export.py wrote: .onnx or .xml; or .ort')
    several = 'images, folders, videos, URLs of streams, numbers of cameras; Ctrl-C ends a stream'
    parser.add_argument('images', nargs='*', default=[], help=several)
    parser.add_argument('--out-dir', metavar='DIR', help='gets vis/, predictions.json and images.json')
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='images per run of the network')
    least = 'draw what scores as much (default: the best of each class on the validation images, else 0.3)'
    parser.add_argument('--score-thr', type=_score, help=least)
    parser.add_argument('--json-score-thr', type=_score, default=0.0, help='write what scores as much (default: all)')
    parser.add_argument('--threads', type=int, metavar='N', help='of the processor')
    device = 'such as cpu, cuda:1, tensorrt, openvino:GPU; default: what the runtime finds'
    parser.add_argument('--device', help=device)
    tile = 'cut images into overlapping squares of so many pixels (boxes and segmentation maps)'
    parser.add_argument('--tile', type=int, metavar='PIXELS', help=tile)
    parser.add_argument('--max-images', type=int, metavar='N', help='stop after so many images or frames')
    timed = 'print the times of preprocessing, network and postprocessing; without images, on random pixels'
    parser.add_argument('--benchmark', action='store_true', help=timed)
    parser.add_argument('--no-draw', dest='draw', action='store_false', help='write the JSON files only')
    web.add_options(parser)
    args = parser.parse_intermixed_args(argv)  # options may stand between the file and the images
    _check_options(parser, args)
    if not args.web and not args.benchmark and not (args.images and args.out_dir):
        parser.error('images and --out-dir are required, or --web or --benchmark')
    if args.max_images is not None and args.max_images < 1:
        parser.error('--max-images must be 1 or more')
    with process.command():
        _run(args)


def _run(args: argparse.Namespace) -> None:
    try:
        if args.web:
            web.write_and_serve(args)
        elif args.benchmark:
            session = Session(args.file, args.threads, args.device)
            print(session.benchmark(args.images or None, args.batch_size))
        else:
            predict_files(args)
    except RuntimeInputError as error:
        sys.exit(f'error: {error}')
    except OSError as error:
        sys.exit(f'error: {printable(f"{error.filename}: {error.strerror}" if error.filename else error)}')


def _score(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f'expected a score from 0 to 1, got {text}')
    return value


def _check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the command if an argument has no effect beside the others."""
    given = [name for name, value in vars(args).items() if value != parser.get_default(name)]
    use = next((option for option in ('web', 'benchmark') if option in given), 'out_dir')
    for name in given:
        if name not in _READ[use]:
            beside = 'without --web' if name in _READ['web'] else f'with --{use}'
            option = {'images': 'images', 'draw': '--no-draw'}.get(name, '--' + name.replace('_', '-'))
            parser.error(f'{option}: no effect {beside}')


def predict_files(args: argparse.Namespace) -> None:
    """Writes the predictions for the images.

    Raises:
        RuntimeInputError: The file or an argument cannot be used.
        SystemExit: Some images cannot be used; the predictions for the others are written.
    """
    session, out = Session(args.file, args.threads, args.device), Path(args.out_dir)
    ids = {name: range(1, len(task['classes']) + 1) or None for name, task in session.tasks.items()}
    (out / 'vis' if args.draw else out).mkdir(parents=True, exist_ok=True)
    drawn: set[str] = set()
    faults: list[str] = []
    number, is_interrupted = 0, False
    tried = itertools.islice(session.try_predict(args.images, args.batch_size, args.tile), args.max_images)
    log, least = ResultLog(out, [args.file, *args.images]), args.json_score_thr
    try:
        with ended_by_sigterm():
            for number, (path, result) in enumerate(tried, start=1):
                try:
                    if isinstance(result, RuntimeInputError):
                        raise result
                    with refusing(path):
                        records = {name: result.one(name).to_coco(number, ids[name], least) for name in ids}
                        if args.draw:
                            _draw(result, number, args.score_thr, out / 'vis', drawn)
                except RuntimeInputError as error:
                    faults.append(str(error))
                    continue
                height, width = result.image.shape[:2]
                image = {'id': number, 'file_name': path, 'width': width, 'height': height}
                log.add(number, path, {'image': image, 'records': records})
    except KeyboardInterrupt:  # how a user ends a stream
        is_interrupted = True
        print('interrupted: only the results until now are written', file=sys.stderr)
    is_used = number > len(faults) or not faults
    written = write_results(out, session.tasks, log.rows) if is_used else {}  # results of a former run stay
    log.discard()
    for path in written.values():
        print(printable(path))
    if is_interrupted and not any(map(is_stream, args.images)):  # which has no other end
        sys.exit(130)
    if not is_used:
        sys.exit('error: ' + ('\n  '.join([f'all {number} images failed:', *faults]) if number > 1 else faults[0]))
    if faults:
        many = f'{len(faults)} of {number} images failed; the results of the others are in {printable(out)}:'
        sys.exit('error: ' + '\n  '.join([many, *faults]))


def _draw(result: Result, number: int, score_thr: float | None, folder: Path, drawn: set[str]) -> None:
    """Writes the drawn image under its name; with a number before it if an image of another folder already uses it."""
    file = file_name(Path(result.path).name)
    numbered = (f'{count}_{file}' for count in itertools.count(number))
    name = next(name for name in itertools.chain([file], numbered) if name not in drawn)
    content = encoded(result.plot(score_thr), Path(name).suffix)
    with refusing(str(folder / name)):
        write_bytes(folder / name, content, is_flushed=False)
    drawn.add(name)


if __name__ == '__main__':
    main()
