"""Stitched images show their objects where the annotations say."""

import importlib
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('mmengine')

from icconv_mm import annotations


@pytest.fixture
def stitch(tiny):
    return importlib.import_module('stitched')


@pytest.fixture
def part(stitch, tiny):
    return stitch.tiny_imagenet.load(tiny, 'train')


def test_boxes_are_those_of_the_lists(part, tiny):
    lines = (tiny / 'train' / 'n02' / 'n02_boxes.txt').read_text().split('\n')
    left, top, right, bottom = map(int, lines[3].split('\t')[1:])
    image, box = part.images[13], part.boxes[13]
    assert part.labels[13] == 1 and box.tolist() == [left, top, right + 1, bottom + 1]
    assert (image[top : bottom + 1, left : right + 1] == (40, 220, 40)).all()
    assert (image != 128).any(2).sum() == (right + 1 - left) * (bottom + 1 - top)


@pytest.mark.parametrize('count', range(1, 11))
def test_tiles_fill_the_image_once(count, stitch):
    randomness = np.random.default_rng(count)
    for _ in range(20):
        covered, tiles = np.zeros((192, 192), int), stitch.tiles(192, count, randomness)
        for x, y, width, height in tiles:
            covered[y : y + height, x : x + width] += 1
            assert max(width, height) < 3 * min(width, height)
        assert len(tiles) == count and (covered == 1).all()


@pytest.mark.parametrize('size', [(96, 96), (40, 90), (120, 50), (24, 20)])
def test_a_part_of_an_image_has_its_object_where_the_box_says(size, stitch, part):
    randomness = np.random.default_rng(0)
    for image, box in itertools.chain(*[zip(part.images, part.boxes, strict=True)] * 3):
        pixels, edges = stitch.fitted(image, box, size, randomness)
        assert pixels.shape == (size[1], size[0], 3)
        ys, xs = np.nonzero((np.abs(pixels.astype(int) - 128) > 44).any(2))  # half of what an object has
        bounds = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert np.abs(bounds - edges).max() <= 0.5 + max(size) / 64, (box, edges, bounds)
        assert (edges[2:] - edges[:2] > 1).all() and (edges >= 0).all() and (edges <= np.tile(size, 2)).all()
        # all of the object is seen, if it fits
        scale = min(32 / np.array(size))
        seen, whole = (edges[2:] - edges[:2]) * scale, box[2:] - box[:2]
        fits = whole <= np.floor(np.multiply(size, scale))
        np.testing.assert_allclose(seen[fits], whole[fits], rtol=0.1)


def test_half_of_the_images_are_flipped(stitch, part):
    randomness, flips = np.random.default_rng(0), 0
    for image, box in zip(part.images, part.boxes, strict=True):
        pixels, edges = stitch.fitted(image, box, (32, 32), randomness)
        is_flipped = not np.array_equal(pixels, image)
        left, top, right, bottom = box
        assert edges.tolist() == [*((32 - right, top, 32 - left) if is_flipped else (left, top, right)), bottom]
        assert np.array_equal(pixels, image[:, ::-1] if is_flipped else image)
        flips += is_flipped
    assert 8 <= flips <= 22


def test_a_stitched_image_shows_each_object_in_its_box(stitch, part):
    randomness = np.random.default_rng(0)
    for _ in range(30):
        chosen = randomness.permutation(30)[: randomness.integers(1, 11)]
        canvas, objects = stitch.stitched(part, chosen, 192, randomness)
        assert canvas.shape == (192, 192, 3) and len(objects) == len(chosen)
        for number, annotation in zip(chosen, objects, strict=True):
            x, y, width, height = annotation.box
            assert x >= 0 and y >= 0 and x + width <= 192 and y + height <= 192
            assert annotation.name == part.classes[part.labels[number]]
            colour = part.images[number][tuple(int(part.boxes[number][i]) for i in (1, 0))]
            np.testing.assert_array_equal(canvas[int(y + height / 2), int(x + width / 2)], colour)


def test_every_image_is_used_before_one_is_used_again(stitch, part):
    numbers = list(itertools.islice(stitch._numbers(part, np.random.default_rng(0)), 60))
    assert sorted(numbers[:30]) == sorted(numbers[30:]) == list(range(30)) and numbers[:30] != numbers[30:]


def test_the_folder_is_read_as_coco_and_is_the_same_each_time(stitch, tiny, tmp_path, capsys):
    written = []
    for name in ('one', 'two'):
        stitch.main([str(tiny), '--out', str(tmp_path / name), '--train', '7', '--val', '2', '--size', '96'])
        files = sorted(path for path in (tmp_path / name).rglob('*') if path.is_file())
        written.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert written[0] == written[1] and len(written[0]) == 11  # 9 images, 2 lists
    content = json.loads(written[0][Path('annotations', 'instances_train.json')])
    assert [category['name'] for category in content['categories']] == ['goldfish', 'bullfrog', 'n03']
    dataset = annotations.read(tmp_path / 'one')
    assert Counter(image.split for image in dataset) == {'train': 7, 'val': 2}
    assert {image.size for image in dataset} == {(96, 96)} and not dataset.warnings
    count = sum(1 for _ in dataset.annotations())
    assert capsys.readouterr().out.splitlines()[-1] == f'{tmp_path / "two"}: 9 images, {count} objects'
    assert not list(tmp_path.glob('.stitched_*'))


def test_a_folder_with_files_is_refused(stitch, tiny, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine.txt').write_text('mine')
    with pytest.raises(SystemExit, match=r'^error: --out: .* is not an empty folder'):
        stitch.main([str(tiny), '--out', str(tmp_path / 'out'), '--train', '1', '--val', '0'])
