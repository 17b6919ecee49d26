"""Predict for pictures with an exported network: drawn pictures and COCO results, without torch.

Examples:
  python -m icconv_mm_runtime network.onnx photographs/ --out-dir found
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from icconv_mm_runtime.drawing import content_of, draw, joined
from icconv_mm_runtime.errors import RuntimeInputError
from icconv_mm_runtime.results import coco_records
from icconv_mm_runtime.session import Prediction, Session


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog='python -m icconv_mm_runtime',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument('file', help='what tools/export.py wrote: .onnx or .xml')
    parser.add_argument('pictures', nargs='+', help='pictures, folders, videos')
    parser.add_argument('--out-dir', required=True, metavar='DIR', help='gets vis/, predictions.json and images.json')
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='pictures per run of the network')
    parser.add_argument('--score-thr', type=float, default=0.3, help='draw what scores as much (default: 0.3)')
    parser.add_argument('--json-score-thr', type=float, default=0.0, help='write what scores as much (default: all)')
    parser.add_argument('--threads', type=int, metavar='N', help='of the processor')
    parser.add_argument('--no-draw', dest='draw', action='store_false', help='write the JSON files only')
    args = parser.parse_args(argv)
    try:
        run(args)
    except (RuntimeInputError, OSError) as error:
        sys.exit(f'error: {" ".join(str(error).split())}')


def run(args: argparse.Namespace) -> None:
    session, out = Session(args.file, args.threads), Path(args.out_dir)
    out.mkdir(parents=True, exist_ok=True)
    images: list[dict] = []
    records: dict[str, list[dict]] = {name: [] for name in session.tasks}
    drawn: set[str] = set()
    for number, prediction in enumerate(session.predict(args.pictures, args.batch_size), start=1):
        height, width = prediction.image.shape[:2]
        name = Path(prediction.path).name
        images.append({'id': number, 'file_name': name, 'width': width, 'height': height})
        for task, found in prediction.tasks.items():
            records[task] += coco_records(session.tasks[task], found, number, args.json_score_thr)
        if args.draw:
            shown = name if Path(name).suffix else f'{name}.jpg'
            shown = f'{number}_{shown}' if shown in drawn else shown  # of another folder
            drawn.add(shown)
            _write(out / 'vis' / shown, _drawn(session, prediction, args.score_thr))
    for task, description in session.tasks.items():
        suffix = f'.{task}' if task else ''
        categories = [{'id': i, 'name': known} for i, known in enumerate(description['classes'], start=1)]
        about = {'images': images, 'annotations': [], 'categories': categories}
        for kind, content in (('predictions', records[task]), ('images', about)):
            path = out / f'{kind}{suffix}.json'
            path.write_text(json.dumps(content))
            print(path)


def _drawn(session: Session, prediction: Prediction, score_thr: float) -> np.ndarray:
    """The picture [h, w, 3], BGR, with what all tasks found, on at most 4096 pixels."""
    parts = [content_of(session.tasks[name], found, score_thr) for name, found in prediction.tasks.items()]
    return draw(prediction.image[..., ::-1], joined(parts))[..., ::-1]


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise RuntimeInputError(f'{path}: cannot be written')


if __name__ == '__main__':
    main()
