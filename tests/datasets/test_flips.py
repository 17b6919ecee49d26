"""Which keypoints a flip swaps, by their names, and when nothing says it."""

import labelled
import pytest
import yaml

from icconv_mm import annotations
from icconv_mm.datasets.flips import find_flip_pairs, flips_of


@pytest.mark.parametrize(
    ('names', 'pairs'),
    [
        ('paw1LH paw2LF paw3RF paw4RH tail', [('paw1LH', 'paw4RH'), ('paw2LF', 'paw3RF')]),
        ('top_left top_right bottom_right bottom_left', [('top_left', 'top_right'), ('bottom_left', 'bottom_right')]),
        ('tl tr br bl', [('tl', 'tr'), ('bl', 'br')]),
        ('wingL wingR legL4 legR4 head', [('wingL', 'wingR'), ('legL4', 'legR4')]),
        ('ear_left_2 ear_right_1 nose', [('ear_left_2', 'ear_right_1')]),
        ('1_left_eye 2_right_eye 3_nose', [('1_left_eye', '2_right_eye')]),
        ('L_Eye R_Eye Nose L_F_Paw R_F_Paw', [('L_Eye', 'R_Eye'), ('L_F_Paw', 'R_F_Paw')]),
        ('links_vorn rechts_vorn kopf', [('links_vorn', 'rechts_vorn')]),
        ('upper_lip eye_lid tail_rear', []),
        ('levy_loket pravy_loket', [('levy_loket', 'pravy_loket')]),
        ('venstre_fot hoyre_fot hode', [('venstre_fot', 'hoyre_fot')]),
        ('spine1 spine2 spine3 lhip rhip', [('lhip', 'rhip')]),
        ('nose tail_base tail_tip lip leg', []),
    ],
)
def test_names_whose_flip_is_known(names, pairs):
    names = names.split()
    alone = [name for name in names if not any(name in pair for pair in pairs)]
    assert flips_of(names) == (pairs, alone, '') and find_flip_pairs(names) == pairs


@pytest.mark.parametrize(
    ('names', 'unknown'),
    [
        ('p1 p2 p3 p4', 'p1, p2, p3, p4'),
        ('point_1', 'point_1'),
        ('a b c', 'a, b, c'),
        ('corner1 corner2 middle', 'corner1, corner2'),
        ('cornerA cornerB', 'cornerA, cornerB'),
        ('first_leg second_leg head', 'first_leg, second_leg'),
        ('left_eye nose', 'left_eye'),
        ('top_left nose', 'top_left'),
        ('pawL nose', 'pawL'),
        ('paw1L paw2L paw3R paw4R', 'paw1L, paw2L, paw3R, paw4R'),  # which is the partner of which?
        ('left_hand right_hand face_1 face_2', 'face_1, face_2'),
        ('spine1 spine2 nose', 'spine1, spine2'),
        ('north east south west', 'east, west'),
        ('auge_li auge_re nase', 'auge_li, auge_re'),
        ('esq_olho dir_olho boca', 'esq_olho, dir_olho'),
        ('near_eye far_eye nose', 'near_eye, far_eye'),
        ('hip_nearside hip_offside tail', 'hip_nearside, hip_offside'),
        ('ipsi_paw contra_paw nose', 'ipsi_paw, contra_paw'),
        ('babord tribord mat', 'babord, tribord'),
    ],
)
def test_names_whose_flip_is_not_known(names, unknown):
    names = names.split()
    assert flips_of(names) == (None, unknown.split(', '), '')


def test_indices_of_a_file():
    names = ['a', 'b', 'c']
    assert flips_of(names, [1, 0, 2]) == ([('a', 'b')], [], '') and flips_of(names, [0, 1, 2]) == ([], [], '')
    for wrong in ([1, 0], [1, 2, 0], ['a', -1, None]):
        assert flips_of(names, wrong)[:2] == (None, names) and 'expected' in flips_of(names, wrong).problem


@pytest.mark.parametrize(('names', 'flips'), [('left_ear right_ear nose', [1, 0, 2]), ('p1 p2 p3', None)])
def test_yolo_has_no_flip_idx_where_no_flip_is_known(tmp_path, names, flips):
    """Without the key, Ultralytics does not flip."""
    pytest.importorskip('pycocotools')
    dataset = annotations.read(labelled.yolo(tmp_path / 'data', 'keypoints'))
    dataset.keypoints, dataset.flip_indices = names.split(), []
    dataset.to_yolo(tmp_path / 'out')
    assert yaml.safe_load((tmp_path / 'out' / 'data.yaml').read_text()).get('flip_idx') == flips
