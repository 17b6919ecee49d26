"""What each value of segmentation maps is: a class and its name, or ignored."""

import numpy as np
import pytest
from PIL import Image

from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.find import read_datasets

SIZE = 40, 50  # 1 % are 20 pixels


def _dataset(root, maps):
    """Maps of 0 and, from the left, of each value so many pixels: ``[{255: 300, 3: 5}, ...]``."""
    for number, values in enumerate(maps):
        flat = np.zeros(SIZE[0] * SIZE[1], np.uint16 if max(values, default=0) > 255 else np.uint8)
        start = 0
        for value, count in values.items():
            flat[start : start + count] = value
            start += count
        for folder, pixels in (('images', np.full((*SIZE, 3), number, np.uint8)), ('masks', flat.reshape(SIZE))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f'{number}.png')
    (dataset,) = read_datasets(root)
    return dataset


@pytest.mark.parametrize(
    ('maps', 'options', 'classes', 'warned'),
    [
        ([{255: 300}] * 8 + [{255: 300, 3: 50}] * 2, {}, ['background', 'foreground', 'class_3'], '--ignore-index 3'),
        ([{255: 300}] * 8 + [{255: 300, 3: 50}] * 2, dict(ignore_index=[3]), ['background', 'foreground'], ''),
        (
            [{255: 300}] * 8 + [{255: 300, 3: 50}] * 2,
            dict(classes=['road', 'crack']),
            ['road', 'crack'],
            'label 3, which has no name: 100 pixels',
        ),
        ([{255: 300}] * 8 + [{255: 300, 3: 5}] * 2, {}, ['background', 'foreground'], '10 pixels are ignored'),
        ([{1: 1700, 255: 300}] * 9 + [{1: 1600, 255: 300, 7: 100}], {}, ['class_1', 'foreground', 'class_7'], '0.50%'),
        # 255 is no object where a quarter of the maps have another value, or that has 1 % of the pixels
        ([{255: 300}] * 7 + [{255: 300, 3: 50}] * 3, {}, ['class_0', 'class_3'], ''),
        ([{255: 300}] * 8 + [{255: 300, 3: 100}] * 2, {}, ['class_0', 'class_3'], ''),
        # nor where a map has none
        ([{255: 300}] * 7 + [{}, {255: 300, 3: 50}, {255: 300}], {}, ['class_0', 'class_3'], '--ignore-index 3'),
        ([{255: 300}] * 9 + [{}], {}, ['background', 'foreground'], ''),
        # nor where a name belongs to the rare value
        ([{255: 300}] * 9 + [{255: 300, 1: 50}], dict(classes=['road', 'crack']), ['road', 'crack'], ''),
        # rare values beside usual ones
        ([{1: 600}] * 8 + [{1: 600, 2: 50}] * 2, {}, ['class_0', 'class_1', 'class_2'], '2 of 10 maps and 0.50%'),
    ],
)
def test_what_is_ignored_is_plausible(tmp_path, maps, options, classes, warned):
    dataset = _dataset(tmp_path / 'data', maps)
    converted = convert_dataset(dataset, 'semantic', tmp_path / 'out', **options)
    assert converted.classes == classes
    assert [warned in what for _, what in dataset.warnings] == [True] * bool(warned)
    is_object = 'foreground' in classes or ('crack' in classes and 3 in maps[-1])
    assert any('255 is the object' in note for note in converted.notes) == is_object


@pytest.mark.parametrize(
    ('values', 'classes', 'is_ignored'),
    [
        ({1: 600, 2: 300, 65535: 200}, ['class_0', 'class_1', 'class_2'], True),
        ({65535: 200}, ['class_0', 'class_65535'], False),  # of two values, it is the object
        ({1: 600, 32767: 200}, ['class_0', 'class_1', 'class_32767'], False),
    ],
)
def test_the_last_value_of_16_bits_is_ignored_as_that_of_8(tmp_path, values, classes, is_ignored):
    converted = convert_dataset(_dataset(tmp_path / 'data', [values] * 5), 'semantic', tmp_path / 'out')
    assert converted.classes == classes
    said = 'label 65535, the last of 16 bits, is ignored: 10.0% of the pixels'
    assert (said in converted.notes) == is_ignored and abs(sum(converted.counts.values()) - 1) < 1e-9
