"""A set of a few drawn images in the layout of Tiny ImageNet."""

import cv2
import numpy as np
import pytest

SIDE = 32
KEYS = ('n01', 'n02', 'n03')
COLOURS = ((220, 40, 40), (40, 220, 40), (40, 40, 220))  # of the classes' objects, BGR


@pytest.fixture
def tiny(tmp_path, repo, monkeypatch):
    """The folder of the set: 30 images to train, 9 to test, each with a rectangle of its class's colour on grey."""
    monkeypatch.syspath_prepend(str(repo / 'tools' / 'dev' / 'pretrain'))
    root, randomness = tmp_path / 'tiny', np.random.default_rng(0)
    for label, key in enumerate(KEYS):
        lines = [draw(root / 'train' / key / 'images' / f'{key}_{i}.png', label, randomness) for i in range(10)]
        (root / 'train' / key / f'{key}_boxes.txt').write_text('\n'.join(lines) + '\n')
    lines = [draw(root / 'val' / 'images' / f'val_{i}.png', i % 3, randomness, KEYS[i % 3]) for i in range(9)]
    (root / 'val' / 'val_annotations.txt').write_text('\n'.join(lines) + '\n')
    (root / 'words.txt').write_text('n01\tgoldfish, Carassius auratus\nn02\tbullfrog\n')
    return root


def draw(path, label, randomness, *fields):
    """Draws an image; returns its line in the list of boxes."""
    left, top = (int(value) for value in randomness.integers(0, SIDE - 16, 2))
    width, height = (int(value) for value in randomness.integers(8, 17, 2))
    image = np.full((SIDE, SIDE, 3), 128, np.uint8)
    image[top : top + height, left : left + width] = COLOURS[label]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return '\t'.join([path.name, *fields, *map(str, (left, top, left + width - 1, top + height - 1))])
