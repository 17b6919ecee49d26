"""What is written of a set: nothing is lost or taken for something else without a word."""

import json

import labelled
import numpy as np
import pytest
import yaml
from drawn_sets import edited, entries_of, only
from PIL import Image

from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.find import name_of
from icconv_mm.app.annotations.writers.yolo import write_yolo
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.errors import InputError

pytest.importorskip('pycocotools')


def _change(root, change):
    """Change each annotation of a set of COCO's by a function of it and its number."""
    for split in ('train', 'val'):
        with edited(root / f'{split}.json') as content:
            for number, entry in enumerate(content['annotations']):
                change(entry, number)
    return root


def _maps(root, values, count=4, **options):
    """Images of 16 x 16 pixels and maps with these values in columns; values may be a function of the number."""
    for folder in ('images', 'masks'):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        map_values = values(number) if callable(values) else values
        labels = np.array(map_values, dtype=np.uint8)[np.arange(256).reshape(16, 16) % 16 * len(map_values) // 16]
        Image.fromarray(np.full((16, 16, 3), number % 256, dtype=np.uint8)).save(root / f'images/{number:03}.png')
        image = Image.fromarray(labels)
        if 'palette' in options:
            image.putpalette(options['palette'])
        image.save(root / f'masks/{number:03}.png')
    return root


# --- objects ---


def test_poses_of_the_classes_that_have_keypoints(tmp_path):
    """Regions of other classes would hide the images from the loss; classes that are not asked for are left out."""

    def dogs_are_regions(entry, _):
        if entry['category_id'] == 7:
            del entry['keypoints']
            entry['segmentation'] = [labelled.polygon(0, 0, *labelled.SIZE)]

    root = labelled.coco(tmp_path / 'data', 'keypoints')
    converted = convert_dataset(only(root), 'pose', tmp_path / 'dogs', classes=['dog'])
    assert (
        converted.classes == ['dog']
        and converted.counts == {'dog': 3}
        and len(entries_of(converted)) == len(converted.boxes) == 3
    )
    dataset = only(_change(root, dogs_are_regions))
    converted = convert_dataset(dataset, 'pose', tmp_path / 'cats')
    assert converted.classes == ['cat'] and all(entry['num_keypoints'] == 3 for entry in entries_of(converted))
    assert 'never with a keypoint, left out: dog' in converted.notes
    with pytest.raises(InputError, match='no class with keypoints is called dog; there are: cat'):
        convert_dataset(dataset, 'pose', tmp_path / 'none', classes=['dog'])


def test_people_without_a_mask_are_left_to_the_other_tasks(tmp_path):
    def only_cats_have_masks(entry, _):
        if entry['category_id'] == 3:
            entry['segmentation'] = [labelled.polygon(*entry['bbox'])]

    dataset = only(_change(labelled.coco(tmp_path / 'data', 'keypoints'), only_cats_have_masks))
    counts = {
        task: len(entries_of(convert_dataset(dataset, task, tmp_path / 'out')))
        for task in ('instance', 'detection', 'pose')
    }
    assert counts == dict(instance=3, detection=6, pose=6) and len(dataset.warnings) == 3


@pytest.mark.parametrize(
    ('names', 'flips', 'pairs', 'said'),
    [
        (None, [1, 0, 2], [('point_1', 'point_2')], ''),
        (None, [0, 1, 2], [], ''),
        (None, None, None, 'images are not flipped'),
        (['hip_a', 'hip_b', 'tail'], None, None, 'an order: hip_a, hip_b: images are not flipped'),
        (['nose', 'back', 'tail'], None, [], 'no partner: nose, back, tail'),
        (['lhip', 'rhip', 'tail'], None, [('lhip', 'rhip')], 'no partner: tail'),
        (['Lear', 'Rear', 'tail'], None, [('Lear', 'Rear')], 'no partner: tail'),
        (['left_hip', 'right_hip', 'tail'], None, [('left_hip', 'right_hip')], 'no partner: tail'),
        (None, [1, 0], None, 'flip_idx is [1, 0], expected'),
        (None, [2, 3, 1], None, 'flip_idx is [2, 3, 1], expected'),
        (None, [1, 2, 0], None, 'flip_idx is [1, 2, 0], expected'),
        (None, ['a', -1, None], None, "flip_idx is ['a', -1, None], expected"),
    ],
)
def test_keypoints_in_a_flip(tmp_path, names, flips, pairs, said):
    """Pairs of the file, else of the names; what is not known or wrong is reported."""
    dataset = only(labelled.yolo(tmp_path, 'keypoints'))
    dataset.keypoints, dataset.flip_indices = names or dataset.keypoints, flips or []
    converted = convert_dataset(dataset, 'pose', tmp_path / 'out')
    assert converted.flip_pairs == pairs
    lines = [line for line in (*converted.notes, *(what for _, what in dataset.warnings)) if 'flip' in line]
    assert bool(lines) == bool(said) and said in ' '.join(lines)


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ([0.1, 0.2, 1], ''),
        ([0.1, 0.2], 'kpt_oks_sigmas is [0.1, 0.2], expected 3 numbers above 0: not used'),
        ([0.1, 0.2, 0], 'kpt_oks_sigmas is [0.1, 0.2, 0], expected 3 numbers above 0: not used'),
        ([0.1, 0.2, float('inf')], 'kpt_oks_sigmas is [0.1, 0.2, inf], expected 3 numbers above 0: not used'),
        ('wide', "kpt_oks_sigmas is 'wide', expected 3 numbers above 0: not used"),
    ],
)
def test_sigmas_of_keypoints(tmp_path, given, said):
    """The file's are learned and written again; without them they are those of the names."""
    root = labelled.yolo(tmp_path / 'data', 'keypoints')
    with open(root / 'data.yaml', 'a') as file:
        yaml.safe_dump({'kpt_oks_sigmas': given}, file)
    dataset = only(root)
    assert said in ' '.join(what for _, what in dataset.warnings) and bool(dataset.warnings) == bool(said)
    converted = convert_dataset(dataset, 'pose', tmp_path / 'out')
    expected = [0.05] * 3 if said else given
    assert converted.sigmas == expected == json.loads((tmp_path / 'out/pose_keypoints.json').read_text())['sigmas']
    write_yolo(dataset, tmp_path / 'again')
    assert only(tmp_path / 'again').sigmas == ([] if said else given)


# --- segmentation maps ---


def test_a_value_that_the_first_maps_do_not_show(tmp_path):
    """Without names every map is read; with names, what has none is ignored, and said."""
    dataset = only(_maps(tmp_path / 'data', lambda number: [1, 2, 4] if number % 2 else [1, 2], count=202))
    names = dict(classes=['void', 'one', 'two'])
    converted = convert_dataset(dataset, 'semantic', tmp_path / 'named', **names)
    assert converted.classes == ['one', 'two']
    assert [what for _, what in dataset.warnings] == [
        'label 4, which has no name: ignored in this map and those after it'
    ]
    dataset = only(tmp_path / 'data')
    assert convert_dataset(dataset, 'semantic', tmp_path / 'unnamed').classes == ['class_1', 'class_2', 'class_4']
    assert not dataset.warnings


def test_a_map_that_cannot_be_used_among_those_that_are_not_looked_at_first(tmp_path):
    root = _maps(tmp_path / 'data', [1, 2], count=202)
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(root / 'masks/001.png')
    Image.fromarray(np.full((16, 16), -1, dtype=np.int32), mode='I').save(root / 'masks/003.tif')
    (root / 'masks/003.tif').rename(root / 'masks/003.png')
    converted = convert_dataset(dataset := only(root), 'semantic', tmp_path / 'out', classes=['void', 'one', 'two'])
    said = ' '.join(what for _, what in dataset.warnings)
    assert sum(converted.splits.values()) == 200 and 'has 8 x 8 pixels' in said and 'labels from -1 to -1' in said


@pytest.mark.parametrize('is_of_table', [True, False])
def test_palettes_beside_a_table_of_colors(tmp_path, is_of_table):
    """Colours count, not their indices in the palette, unless the palette has other colours than the table."""
    colors = [0, 0, 255, 255, 0, 0, 0, 255, 0] if is_of_table else [7, 7, 7, 8, 8, 8, 9, 9, 9]
    root = _maps(tmp_path / 'data', [0, 0, 0, 1, 1, 2], palette=colors + [0] * 759)
    (root / 'class_dict.csv').write_text('name,r,g,b\nroad,255,0,0\ncar,0,255,0\nsky,0,0,255\n')
    converted = convert_dataset(only(root), 'semantic', tmp_path / 'out')
    order = ['sky', 'road', 'car'] if is_of_table else ['road', 'car', 'sky']
    assert sorted(converted.counts, key=converted.counts.get, reverse=True) == order
    assert is_of_table != any('palettes of maps have other colours' in note for note in converted.notes)


def test_255_is_an_object_or_is_ignored(tmp_path):
    dataset = only(_maps(tmp_path / 'object', [0, 255]))
    converted = convert_dataset(dataset, 'semantic', tmp_path / 'out', classes=['background', 'crack'])
    assert converted.counts == dict(background=0.5, crack=0.5)
    labels = np.asarray(Image.open(next(iter(dataset.images.values())).seg_map))
    assert np.unique(labels).tolist() == [0, 1]
    converted = convert_dataset(only(_maps(tmp_path / 'void', [0, 128, 255, 255])), 'semantic', tmp_path / 'more')
    assert (
        converted.classes == ['class_0', 'class_128'] and 'label 255 is ignored: 50.0% of the pixels' in converted.notes
    )
    with pytest.raises(DatasetError, match='label 0, 1, of the classes a alone: there is nothing to tell apart'):
        convert_dataset(
            only(_maps(tmp_path / 'one', [0, 1])), 'semantic', tmp_path / 'none', classes=['a', 'b'], ignore_index=[1]
        )


# --- names of runs ---


def test_runs_are_named_after_their_set(tmp_path):
    (tmp_path / 'set.v1').mkdir()
    names = [
        name_of(tmp_path / location) for location in ('set.v1', 'A/data.yaml', 'A/annotations.json', 'A/train.json')
    ]
    assert names == ['set.v1', 'A', 'A', 'train']
