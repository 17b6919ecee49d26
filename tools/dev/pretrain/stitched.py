"""Stitch images of Tiny ImageNet and their boxes into larger ones of one to ten objects; write them as COCO.

Examples:
  python tools/dev/pretrain/stitched.py data/tiny-imagenet-200 --out data/stitched
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import tiny_imagenet

from icconv_mm.app.annotations.dataset import Annotation, Dataset
from icconv_mm.app.annotations.writers.coco import write_coco
from icconv_mm.app.commands import command_line
from icconv_mm.arguments import check_not_negative, check_positive
from icconv_mm.errors import ArgumentError
from icconv_mm_runtime.drawing import encoded
from icconv_mm_runtime.files import write_bytes

MOST = 10  # objects of an image
LEAST = 4  # pixels of a side of a box: images with smaller objects are left out
LEAST_SIZE = 64  # pixels: tiles of smaller images would be tiny
CUTS = 0.35, 0.65  # where a tile is cut in two, as parts of its longer side


def tiles(side: int, count: int, randomness: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """Returns tiles (x, y, width, height) that fill a square: the largest is cut in two until there are ``count``."""
    cuts = [(0, 0, side, side)]
    while len(cuts) < count:
        cuts.sort(key=lambda tile: tile[2] * tile[3])
        x, y, width, height = cuts.pop()
        cut = round(max(width, height) * randomness.uniform(*CUTS))
        if width >= height:
            cuts += [(x, y, cut, height), (x + cut, y, width - cut, height)]
        else:
            cuts += [(x, y, width, cut), (x, y + cut, width, height - cut)]
    return cuts


def fitted(
    image: np.ndarray, box: np.ndarray, size: tuple[int, int], randomness: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a part of an image that shows its object, at a size, and the object's box there.

    The part has the shape of the size and is as large as possible. It has the whole box unless the box is longer, of
    which then a part is seen. Half of the images are flipped.

    Args:
        image: [H, W, 3].
        box: Left, top, right and bottom edge in pixels.
        size: Width and height.
        randomness: For the position and the flip.
    """
    lengths = np.array(image.shape[1::-1])
    scale = min(lengths / size)  # pixels of the image in one of the result
    part = np.clip(np.round(np.multiply(size, scale)).astype(int), 1, lengths)
    ends = np.stack([box[:2], box[2:] - part]).astype(int)  # of the first pixel, where box and part have a common edge
    start = randomness.integers(*np.clip([ends.min(0), ends.max(0)], 0, lengths - part), endpoint=True)
    x, y = start
    pixels = cv2.resize(image[y : y + part[1], x : x + part[0]], size, interpolation=cv2.INTER_LINEAR)
    edges = np.clip(box.reshape(2, 2) - start, 0, part) * size / part
    if randomness.random() < 0.5:
        pixels = pixels[:, ::-1]
        edges[:, 0] = size[0] - edges[::-1, 0]
    return pixels, edges.ravel()


def stitched(
    part: tiny_imagenet.Part, chosen: Sequence[int], side: int, randomness: np.random.Generator
) -> tuple[np.ndarray, list[Annotation]]:
    """Returns one image [side, side, 3], BGR, made of the chosen images, and its objects."""
    canvas, objects = np.empty((side, side, 3), np.uint8), []
    for number, (x, y, width, height) in zip(chosen, tiles(side, len(chosen), randomness), strict=True):
        pixels, edges = fitted(part.images[number], part.boxes[number], (width, height), randomness)
        canvas[y : y + height, x : x + width] = pixels
        left, top, right, bottom = (edges + (x, y, x, y)).round(2).tolist()
        box = [left, top, right - left, bottom - top]
        objects.append(Annotation(part.classes[part.labels[number]], box, area=box[2] * box[3]))
    return canvas, objects


def _numbers(part: tiny_imagenet.Part, randomness: np.random.Generator) -> Iterator[int]:
    """Yields the images whose objects are large enough in random order, again and again."""
    usable = np.flatnonzero((part.boxes[:, 2:] - part.boxes[:, :2]).min(1) >= LEAST)
    if not len(usable):
        raise ArgumentError('data', f'no object has {LEAST} pixels or more a side')
    while True:
        yield from randomness.permutation(usable)


def write(data: Path, out: Path, counts: dict[str, int], side: int, seed: int) -> int:
    """Writes a COCO folder; returns the number of objects.

    Args:
        data: The folder of Tiny ImageNet.
        out: A new or empty folder.
        counts: Images of each part, ``'train'`` and ``'val'``.
        side: Width and height in pixels.
        seed: Of everything that is random.

    Raises:
        InputError: As of :func:`tiny_imagenet.load`, and if ``out`` is not empty or cannot be written.
    """
    dataset = Dataset('stitched images', out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix='.stitched_') as folder:
        for index, (name, count) in enumerate(counts.items()):
            part, randomness = tiny_imagenet.load(data, name), np.random.default_rng([seed, index])
            dataset.classes = part.classes
            numbers = _numbers(part, randomness)
            for i in command_line.progress(range(count), f'stitching {name}'):
                chosen = [next(numbers) for _ in range(randomness.integers(1, MOST, endpoint=True))]
                canvas, objects = stitched(part, chosen, side, randomness)
                path = Path(folder, name, f'{i:06}.jpg')
                path.parent.mkdir(exist_ok=True)
                write_bytes(path, encoded(canvas[..., ::-1], '.jpg'), is_flushed=False)
                dataset.image(path, name).annotations = objects
        write_coco(dataset, out, copy=True)
    return sum(1 for _ in dataset.annotations())


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('data', type=Path, metavar='DATA', help='folder of Tiny ImageNet, with train and val')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER', help='a new or empty folder')
    parser.add_argument('--train', type=int, default=15800, metavar='N', help='training images; default: %(default)s')
    parser.add_argument('--val', type=int, default=500, metavar='N', help='validation images; default: %(default)s')
    parser.add_argument('--size', type=int, default=192, help='width and height in pixels; default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='default: %(default)s')
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug, interrupted='nothing was left behind'):
        check_positive(train=args.train)
        check_not_negative(val=args.val, seed=args.seed)
        if args.size < LEAST_SIZE:
            raise ArgumentError('size', f'expected {LEAST_SIZE} pixels or more, got {args.size}')
        count = write(args.data, args.out, dict(train=args.train, val=args.val), args.size, args.seed)
    print(f'{args.out}: {args.train + args.val} images, {count} objects')


if __name__ == '__main__':
    main()
