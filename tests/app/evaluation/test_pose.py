"""The report shows what mmpose's metric has measured, whatever its options."""

import numpy as np
import pytest

pytest.importorskip('mmpose')

from measured import measured, people
from mmpose.evaluation.metrics import CocoMetric

from icconv_mm.app.adapters.pose import Adapter

NAMES = ['nose', '<i>ear</i>', 'tail']
ONE = np.array([[10, 10], [10, 60], [40, 60]], float)


def meta(count=3):
    info = {i: dict(name=NAMES[i], id=i, color=[0, 0, 0], type='', swap='') for i in range(count)}
    from mmpose.datasets.datasets.utils import parse_pose_metainfo

    parsed = parse_pose_metainfo(
        dict(dataset_name='a', keypoint_info=info, skeleton_info={}, joint_weights=[1.0] * count, sigmas=[0.1] * count)
    )
    return {**parsed, 'CLASSES': [dict(id=1, name='person')]}


def entry(points, visible=None, area=1500.0, crowd=0):
    points = np.asarray(points, float)
    visible = np.full(len(points), 2) if visible is None else np.array(visible)
    low, size = points.min(0), points.max(0) - points.min(0)
    return {
        'keypoints': np.column_stack([points, visible]).ravel().tolist(), 'area': area, 'iscrowd': crowd,
        'bbox': [*low.tolist(), *size.tolist()], 'num_keypoints': int((visible > 0).sum()),
    }  # fmt: skip


def poses(samples, given=None, **options):
    metric = CocoMetric(**{'score_mode': 'bbox', 'nms_mode': 'none', **options})
    return measured(Adapter(), metric, meta(), samples, given)


def drawn(count=8):
    """Returns images of two people, found twice each, more or less; ids of annotations differ."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(1, count + 1):
        annotated = [ONE + rng.uniform(0, 20, 2), ONE + 150 + rng.uniform(0, 20, 2)]
        predicted = [person + rng.normal(0, spread, person.shape) for person in annotated for spread in (2, 6)]
        entries = [dict(entry(person), id=10 * number + i) for i, person in enumerate(annotated)]
        samples.append(people(predicted, rng.random(4), entries, number, f'{number}.jpg', (300, 300)))
    return samples


@pytest.mark.parametrize(
    'options',
    [
        {}, {'score_mode': 'keypoint'}, {'score_mode': 'bbox_keypoint', 'keypoint_score_thr': 0.2},
        {'score_mode': 'bbox_rle'}, {'nms_mode': 'oks_nms', 'nms_thr': 0.3},
        {'nms_mode': 'soft_oks_nms', 'nms_thr': 0.3}, {'use_area': False}, {'prefix': 'mine'},
    ],
    ids=str,
)  # fmt: skip
def test_poses(options):
    samples = drawn()
    numbers, evaluation = poses(samples, **options)
    prefix = 'mine/' if 'prefix' in options else ''
    usual = {'AP .5': 'AP50', 'AP .75': 'AP75'}
    shown = {
        f'{prefix}keypoint {usual.get(name, name)}': value
        for key, value in numbers.items()
        for name in [key.rpartition('/')[2]]
    }
    pck = evaluation.overall.pop('PCK@0.1')
    assert evaluation.overall == {key: pytest.approx(value) if value >= 0 else None for key, value in shown.items()}
    assert not evaluation.others and not evaluation.left_out and 0 < pck <= 1
    (row,) = evaluation.tables[0].rows
    values = [value if value >= 0 else None for value in list(numbers.values())[:5]]
    assert row[:2] == ['person', 16] and row[2:7] == [
        None if value is None else pytest.approx(value) for value in values
    ]
    # the threshold is of the predicted scores, from which drawings choose, and gives the recall that is told
    scores = np.concatenate([sample['pred_instances']['bbox_scores'] for sample in samples])
    threshold, precision, recall, f1 = row[-4:]
    assert evaluation.thresholds == [threshold] and scores.min() / 2 <= threshold <= scores.max()
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))


def test_the_threshold_is_of_the_predicted_score():
    """mmpose's default multiplies it with those of the keypoints, 0.5 here."""
    samples = [people([ONE, ONE + 40], [0.8, 0.3], [entry(ONE)], number) for number in (1, 2, 3)]
    for mode in ('bbox', 'bbox_keypoint', 'bbox_rle'):
        _, evaluation = poses(samples, score_mode=mode)
        assert evaluation.thresholds == [pytest.approx(0.55)] and evaluation.tables[0].rows[0][-3:] == [1, 1, 1]


def test_format_only(tmp_path):
    numbers, evaluation = poses(drawn(2), format_only=True, outfile_prefix=str(tmp_path / 'a'))
    assert numbers == {} and not evaluation.tables and 'format_only compares nothing' in evaluation.left_out


def test_converted_keypoints_have_no_table():
    """The metric compares two of them; the report knows the names of three."""
    converter = dict(type='KeypointConverter', num_keypoints=3, mapping=[(0, 0), (1, 1), (2, 2)])
    numbers, evaluation = poses(drawn(2), gt_converter=converter, pred_converter=converter)
    assert [table.title for table in evaluation.tables] == ['keypoint AP (OKS)']
    assert len(evaluation.overall) == len(numbers)
    assert evaluation.left_out.startswith('The table of keypoints and images are left out') and not evaluation.worst


def test_keypoints_have_a_line_and_an_error_in_pixels():
    predicted = ONE.copy()
    predicted[0] += 3, 4  # five pixels, as much as counts as near
    predicted[1] += 0, 2
    entries = [entry(ONE, [2, 2, 0]), dict(entry(ONE + 30, crowd=1), id=7)]
    _, evaluation = poses([people([predicted], [0.7], entries)])
    assert evaluation.tables[1].rows == [
        ['all', 2, 0.5, '3.5 px'],
        ['nose', 1, 0.0, '5.0 px'],
        ['<i>ear</i>', 1, 1.0, '2.0 px'],
        ['tail', 0, None, None],
    ]
    assert evaluation.worst[0].score == 0.5 and evaluation.confusion is None  # the crowd is not missed


def test_people_without_a_labelled_keypoint_are_not_missed():
    _, evaluation = poses([people([ONE], [0.7], [entry(ONE), dict(entry(ONE + 30, [0, 0, 0]), id=7)])])
    (row,) = evaluation.tables[0].rows
    assert row[1:3] == [1, pytest.approx(1)] and row[-2] == 1


def test_images_without_people_are_annotated():
    """A person found there is wrong."""
    _, evaluation = poses([people([ONE], [0.7], [entry(ONE)]), people([ONE], [0.9], [], number=2)])
    (row,) = evaluation.tables[0].rows
    assert row[-3] == 0.5 and row[1] == 1


def test_a_crowded_image_of_people():
    """AP is of 20, as COCO's; thresholds are of all."""
    annotated = [np.array([[0, 0], [0, 8], [6, 8]]) + 9.0 * number for number in range(30)]
    entries = [dict(entry(person, area=40.0), id=i) for i, person in enumerate(annotated, 1)]
    numbers, evaluation = poses([people(annotated, np.full(30, 0.9), entries, size=(400, 400))])
    (row,) = evaluation.tables[0].rows
    assert row[2] == pytest.approx(2 / 3, abs=0.01) and row[2] == pytest.approx(numbers['coco/AP'])
    assert row[-3:] == [1.0, 1.0, 1.0] and len(evaluation.worst[0].predictions['keypoints']) == 30
