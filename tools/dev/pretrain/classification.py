"""Pretrain a backbone on Tiny ImageNet: classification of images side by side, in plain PyTorch, on a thread of a CPU.

The same command goes on where it was interrupted, and ends with the weights that it would have had. The order of the
images and their changes are derived from the seed, the epoch and the step, so nothing else has to be saved.

Examples:
  python tools/dev/pretrain/classification.py data/tiny-imagenet-200 --epochs 12 --out work_dirs/pretrained
"""

import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, isfinite, pi
from pathlib import Path

import numpy as np
import tiny_imagenet
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor
from torch.optim import Optimizer

import icconv_mm
from icconv_mm.app.commands import command_line
from icconv_mm.arguments import check_positive
from icconv_mm.checkpoints.convert import write_checkpoint
from icconv_mm.checkpoints.reading import read
from icconv_mm.compat import init_weights
from icconv_mm.engine.optimizers import FusedAdamW
from icconv_mm.errors import ArgumentError, InputError
from icconv_mm.files import alone_in, base_config, require_file
from icconv_mm.models import ImageClassifier

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB, as the configs of all tasks
WEIGHT_DECAY, SMOOTHING = 0.05, 0.1
WARM_UP = 0.05  # part of the steps
SHIFT = 8  # pixels
TEST_BATCH = 500


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, with the images.

    Attributes:
        backbone: Name of a file of ``configs/_base_/backbones``.
        epochs: Number of epochs.
        batch: Images of a step.
        lr: Highest learning rate.
        size: Pixels of a side of what the network sees.
        tiles: Images along such a side; one number is chosen for each step.
        seed: Of the first weights, the order of the images and their changes.
    """

    backbone: str
    epochs: int
    batch: int
    lr: float
    size: int
    tiles: tuple[int, ...]
    seed: int


class Pretraining:
    """A network on its way through the epochs of a recipe.

    Args:
        recipe: The recipe.
        train: Images to learn.
        val: Images to test on after each epoch.

    Raises:
        ArgumentError: A batch has more images than there are.
        MissingFileError: There is no such backbone.
    """

    def __init__(self, recipe: Recipe, train: tiny_imagenet.Part, val: tiny_imagenet.Part):
        self.recipe, self.train, self.val = recipe, train, val
        self.steps = len(train.labels) // recipe.batch  # of an epoch; a smaller last batch is left out
        if not self.steps:
            raise ArgumentError('batch', f'expected at most {len(train.labels)}, the number of images')
        torch.manual_seed(recipe.seed)
        config = base_config(f'backbones/{recipe.backbone}.py')
        require_file(config, 'backbone')
        self.network = ImageClassifier(MODELS.build(Config.fromfile(config).backbone), len(train.classes))
        init_weights(self.network.backbone)
        self.optimizer = _optimizer(self.network)
        self.step, self.loss, self.seconds = 0, 0.0, 0.0  # the loss is the sum of an epoch's
        self.history: list[dict[str, float]] = []

    def run(self, out: Path, save_seconds: float) -> None:
        """Trains what is left; saves ``state.pth`` at least so often, and ``classifier.pth`` after each epoch.

        Raises:
            InputError: A loss is not finite, or a file cannot be written.
        """
        self._go_on(out / 'state.pth')
        saved = time.monotonic()
        while (epoch := self.step // self.steps) < self.recipe.epochs:
            order = np.random.default_rng([self.recipe.seed, epoch]).permutation(len(self.train.labels))
            for step in range(self.step % self.steps, self.steps):
                began = time.process_time()
                self._learn(order[step * self.recipe.batch :][: self.recipe.batch])
                self.seconds += time.process_time() - began
                if self.step % self.steps and time.monotonic() - saved >= save_seconds:
                    self._save(out / 'state.pth')
                    saved = time.monotonic()
            self._end_epoch()
            self._write(out / 'classifier.pth')  # first: a call that finds the last state has nothing left to write
            self._save(out / 'state.pth')
            saved = time.monotonic()

    def learning_rate(self) -> float:
        """Returns the rate of the next step: it rises linearly, then falls as a cosine."""
        total = self.steps * self.recipe.epochs
        warm_up = max(1, round(WARM_UP * total))
        if self.step < warm_up:
            return self.recipe.lr * (self.step + 1) / warm_up
        return self.recipe.lr * (1 + cos(pi * (self.step - warm_up) / (total - warm_up))) / 2

    def _learn(self, chosen: np.ndarray) -> None:
        randomness = np.random.default_rng([self.recipe.seed, self.step // self.steps, 1 + self.step % self.steps])
        tiles = int(randomness.choice(self.recipe.tiles))
        images = to_input(augmented(self.train.images[chosen], randomness), self.recipe.size // tiles)
        for group in self.optimizer.param_groups:
            group['lr'] = self.learning_rate()
        logits = tiled_logits(self.network.train(), images, tiles)
        loss = F.cross_entropy(logits, torch.from_numpy(self.train.labels[chosen]), label_smoothing=SMOOTHING)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        self.loss += loss.item()
        if not isfinite(self.loss):
            raise InputError(f'the loss of step {self.step} is not finite: a lower --lr helps')

    def _end_epoch(self) -> None:
        row = dict(
            epoch=self.step // self.steps, loss=self.loss / self.steps, top1=self.top_1(), core_seconds=self.seconds
        )
        self.history.append(row)
        self.loss = 0.0
        print('epoch {epoch}: loss {loss:.4f}, top-1 {top1:.2f} %, {core_seconds:.0f} s'.format(**row), flush=True)

    @torch.no_grad()
    def top_1(self) -> float:
        """Returns the percentage of validation images that it knows, each alone, in the size of the largest tile."""
        self.network.eval()
        size = self.recipe.size // min(self.recipe.tiles)
        correct = 0
        for first in range(0, len(self.val.labels), TEST_BATCH):
            images = to_input(self.val.images[first : first + TEST_BATCH], size)
            predicted = self.network(images).argmax(1).numpy()
            correct += int((predicted == self.val.labels[first : first + TEST_BATCH]).sum())
        return 100 * correct / len(self.val.labels)

    def _go_on(self, path: Path) -> None:
        """Takes the state of an earlier call, if there is one."""
        if not path.is_file():
            return
        state = read(path)
        mine = self._identity()
        if different := [name for name in mine if state['identity'].get(name) != mine[name]]:
            what = f'{path} is of a training with {different[0]} {state["identity"].get(different[0])!r:.60}'
            raise ArgumentError('out', f'{what}, this one has {mine[different[0]]!r:.60}: choose another folder')
        self.network.load_state_dict(state['network'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.step, self.loss, self.seconds, self.history = (state[name] for name in ('step', *_PROGRESS))
        print(f'going on after step {self.step} of {self.steps * self.recipe.epochs}', flush=True)

    def _identity(self) -> dict[str, object]:
        return {**dataclasses.asdict(self.recipe), 'images': len(self.train.labels), 'classes': self.train.classes}

    def _save(self, path: Path) -> None:
        progress = {name: getattr(self, name) for name in ('step', *_PROGRESS)}
        weights = dict(network=self.network.state_dict(), optimizer=self.optimizer.state_dict())
        write_checkpoint({'identity': self._identity(), **weights, **progress}, path)

    def _write(self, path: Path) -> None:
        meta = dict(
            command=shlex.join(['python', *sys.argv]),
            recipe=dataclasses.asdict(self.recipe),
            history=self.history,
            dataset_meta=dict(classes=self.train.classes),
            versions=dict(icconv_mm=icconv_mm.__version__, torch=str(torch.__version__)),
        )
        write_checkpoint(dict(state_dict=self.network.state_dict(), meta=meta), path)


_PROGRESS = ('loss', 'seconds', 'history')


def _optimizer(network: torch.nn.Module) -> Optimizer:
    """Returns AdamW without weight decay of norms and biases."""
    parameters = list(network.parameters())
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    groups = [dict(params=matrices, weight_decay=WEIGHT_DECAY), dict(params=vectors, weight_decay=0.0)]
    return FusedAdamW(groups)


def augmented(images: np.ndarray, randomness: np.random.Generator) -> np.ndarray:
    """Returns the images [N, H, W, 3] flipped and shifted at random; what comes in at an edge is reflected."""
    count, height, width = images.shape[:3]
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), 'reflect')
    output = np.empty_like(images)
    shifts, flips = randomness.integers(0, 2 * SHIFT + 1, (count, 2)), randomness.random(count) < 0.5
    for i, ((y, x), is_flipped) in enumerate(zip(shifts, flips, strict=True)):
        output[i] = padded[i, y : y + height, x : x + width][:, :: -1 if is_flipped else 1]
    return output


def to_input(images: np.ndarray, size: int) -> Tensor:
    """Returns images [N, H, W, 3], BGR, as a network's input [N, 3, size, size], RGB, in channels_last."""
    tensor = (torch.from_numpy(images[..., ::-1].astype(np.float32)) - torch.tensor(MEAN)) / torch.tensor(STD)
    tensor = tensor.permute(0, 3, 1, 2)  # channels_last: the network's own format on a CPU
    if tensor.shape[2:] == (size, size):
        return tensor
    return F.interpolate(tensor, (size, size), mode='bilinear', align_corners=False, antialias=True)


def tiled_logits(network: ImageClassifier, images: Tensor, tiles: int) -> Tensor:
    """Returns the logits [N, classes] of images [N, 3, size, size] that the network sees side by side in squares.

    Taps of a kernel that reach over the edge of a small map learn nothing: a network that learned on maps of 2 x 2
    cells is of no use on larger ones.

    Args:
        network: The network; its last map is pooled over each image.
        images: N is a multiple of ``tiles ** 2``.
        tiles: Images along a side of a square.
    """
    squares = images.unflatten(0, (-1, tiles, tiles)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    maps = network.forward_features(squares.contiguous(memory_format=torch.channels_last))
    return network.head.fc(F.adaptive_avg_pool2d(maps, tiles).permute(0, 2, 3, 1).flatten(0, 2))


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('data', type=Path, metavar='DATA', help='folder of Tiny ImageNet, with train and val')
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER', help='for classifier.pth and the state')
    parser.add_argument('--backbone', default='small', metavar='NAME', help='of configs/_base_/backbones; %(default)s')
    parser.add_argument('--epochs', type=int, default=12, metavar='N', help='default: %(default)s')
    parser.add_argument('--batch', type=int, default=144, metavar='N', help='images of a step; %(default)s')
    parser.add_argument('--lr', type=float, default=0.002, help='highest learning rate; default: %(default)s')
    parser.add_argument('--size', type=int, default=192, help='pixels of a side of an input; default: %(default)s')
    tiles = 'images along that side; one number is chosen for each step; default: 3 3 2'
    parser.add_argument('--tiles', type=int, nargs='+', default=[3, 3, 2], metavar='N', help=tiles)
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='default: %(default)s')
    parser.add_argument('--threads', type=int, default=1, metavar='N', help='default: %(default)s')
    parser.add_argument(
        '--save-minutes', type=float, default=15, metavar='N', help='between saved states in an epoch; %(default)s'
    )
    args = parser.parse_args(argv)
    with command_line.reporting(args.debug, interrupted='the same command goes on from what is saved'):
        check_positive(epochs=args.epochs, batch=args.batch, size=args.size, threads=args.threads)
        check_positive(tiles=min(args.tiles))
        if uneven := [tiles for tiles in args.tiles if args.batch % tiles**2]:
            raise ArgumentError('batch', f'expected a multiple of {uneven[0] ** 2}, the images of an input')
        torch.set_num_threads(args.threads)
        recipe = Recipe(args.backbone, args.epochs, args.batch, args.lr, args.size, tuple(args.tiles), args.seed)
        with alone_in(args.out, 'another pretraining is running'):
            train, val = (tiny_imagenet.load(args.data, part) for part in tiny_imagenet.PARTS)
            Pretraining(recipe, train, val).run(args.out, 60 * args.save_minutes)


if __name__ == '__main__':
    main()
