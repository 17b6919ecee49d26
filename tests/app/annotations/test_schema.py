"""What a reader returns is checked once, whatever the format: names, paths, numbers, splits."""

import json
import math
from pathlib import Path

import pytest
from drawn_sets import draw

from icconv_mm import annotations
from icconv_mm.app.annotations.dataset import Annotation, Dataset
from icconv_mm.app.annotations.schema import check_dataset
from icconv_mm.datasets import limits
from icconv_mm.datasets.reading import DatasetError
from icconv_mm.errors import InputError


def _dataset(*others, keypoints=(), **options):
    dataset = Dataset('X', Path('data'), classes=['cat'], keypoints=list(keypoints), **options)
    for number in range(2):
        dataset.image(Path(f'/data/{number}.jpg'), 'train').annotations = []
    dataset.images[Path('/data/0.jpg')].annotations += [Annotation('cat', [1.0, 2, 3, 4], location='a'), *others]
    return dataset


@pytest.mark.parametrize(
    ('defect', 'message'),
    [
        (dict(box=[1, 2, math.nan, 4]), 'the box is [1, 2, nan, 4], expected four finite numbers'),
        (dict(box=[1, 2, 3]), 'the box is [1, 2, 3]'),
        (dict(box=['1', 2, 3, 4]), "the box is ['1', 2, 3, 4]"),
        (dict(box=True), 'the box is True'),
        (dict(box=[1, 2, 3, 10**400]), 'the box is [1, 2, 3, 1000'),
        (dict(score=1.5), 'the score is 1.5, expected 0 to 1'),
        (dict(score=-0.1), 'the score is -0.1'),
        (dict(score=math.nan), 'the score is nan'),
        (dict(score='high'), "the score is 'high'"),
        (dict(keypoints=[1, 2, 2]), 'the keypoints are [1, 2, 2], expected 6 finite numbers'),
        (dict(keypoints=[1, 2, 2, math.inf, 2, 2]), 'inf, 2, 2], expected 6 finite numbers'),
        (dict(name='dog'), 'is no class of the dataset'),
    ],
)
def test_annotations_with_a_defect_are_left_out(defect, message):
    wrong = Annotation(**{'name': 'cat', 'box': [1, 2, 3, 4], 'location': 'file: line 3', **defect})
    good = Annotation('cat', [1, 2, 3, 4], keypoints=[1, 2, 2, 0, 0, 0], score=1, location='b')
    dataset = _dataset(wrong, good, keypoints=['nose', 'tail'])
    check_dataset(dataset)
    assert [annotation.location for _, annotation in dataset.annotations()] == ['a', 'b']
    ((where, what),) = dataset.warnings
    assert where == 'file: line 3' and message in what and what.endswith('left out') and len(dataset.lost) == 1


@pytest.mark.parametrize('name', ['a\x07b', 'a\nb', 'a\ufffeb', 'a\uffffb', 'a\ud800b', 'a\u202eb', '{{ a }}', ' ', 7])
@pytest.mark.parametrize('field', ['classes', 'keypoints', 'seg_map_classes', 'labels'])
def test_names_that_files_cannot_hold(name, field):
    dataset = _dataset()
    if field == 'seg_map_classes':
        dataset.seg_map_classes[1] = name
    elif field == 'labels':
        dataset.images[Path('/data/0.jpg')].labels.append(name)
    else:
        getattr(dataset, field).append(name)
    with pytest.raises(InputError, match=r'^data: the (class|keypoint) .*: rename it$'):
        check_dataset(dataset)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(keypoints=['nose', 'nose']), "two keypoints are called 'nose'"),
        (dict(keypoints=list(map(str, range(limits.KEYPOINTS + 1)))), f'at most {limits.KEYPOINTS} are read'),
        (dict(seg_map_classes={70000: 'x'}), '70000 is no value of a segmentation map'),
        (dict(colors={(1, 2, 3): -1}), '-1 is no value'),
    ],
)
def test_tables_that_cannot_be_used(options, message):
    with pytest.raises(DatasetError, match=message):
        check_dataset(_dataset(**options))


def test_splits_and_paths():
    dataset = _dataset()
    dataset.image(Path('/data/a\x01b.jpg'))
    dataset.image(Path('/data/c.jpg')).seg_map = Path('/data/a\ufffeb.png')
    check_dataset(dataset)
    assert [bool(image.problem) for image in dataset] == [False, False, True, True]
    dataset.image(Path('/data/d.jpg'), 'minival')
    with pytest.raises(DatasetError, match="the split 'minival' is none of train, val, test"):
        check_dataset(dataset)


def test_scores_of_a_file_are_checked_before_they_are_written_for_others(tmp_path):
    pytest.importorskip('pycocotools')
    draw(tmp_path, *(f'{number}.jpg' for number in range(5)))
    names = [dict(id=number, file_name=f'{number}.jpg') for number in range(5)]
    (tmp_path / 'images.json').write_text(
        json.dumps(dict(images=names, annotations=[], categories=[dict(id=1, name='x')]))
    )
    scores = [0, 1, 0.5, math.nan, 73]
    records = [dict(image_id=i, category_id=1, bbox=[1, 1, 9, 9], score=score) for i, score in enumerate(scores)]
    (tmp_path / 'predictions.json').write_text(json.dumps(records))
    dataset = annotations.read(tmp_path)
    assert [annotation.score for _, annotation in dataset.annotations()] == [0, 1, 0.5]
    assert [what for _, what in dataset.warnings] == [
        f"'x': the score is {score}, expected 0 to 1: left out" for score in ('nan', '73')
    ]


@pytest.mark.parametrize(
    ('kind', 'given'),
    [
        ('boxes', dict(box=[0.1, 0.2, 0.5, 0.8])),
        ('keypoints', dict(box=[5, 5, 9, 9], keypoints=[0.5, 1, 2, 9, 9, 0])),
        ('polygons', dict(box=[5, 5, 9, 9], segmentation=[[0.1, 0.1, 1, 0.1, 0.1, 1]])),
    ],
)
def test_shares_of_the_sides_are_not_taken_for_pixels(kind, given):
    dataset = _dataset(keypoints=['nose', 'tail'])
    image = dataset.images[Path('/data/0.jpg')]
    image.annotations = [Annotation('cat', **given)] * 3
    with pytest.raises(DatasetError, match=f'^data: all {kind} lie between 0 and 1: multiply them'):
        check_dataset(dataset)
    image.annotations.append(Annotation('cat', [1, 0, 1, 1], [[0, 0, 2, 0, 0, 2]], [0, 2, 1, 0, 0, 0]))
    check_dataset(dataset)
    assert not dataset.warnings
