import json

import numpy as np
import pytest

from icconv_mm.errors import InputError


@pytest.fixture
def write(tmp_path, mmpose):
    """A function that writes annotations, one image per list of them, and builds the dataset."""

    def build(*pictures, kind='BottomupCocoDataset', count=17, **options):
        from mmpose.registry import DATASETS

        annotations = []
        for image_id, people in enumerate(pictures, start=1):
            for person in people:
                given = dict(
                    id=len(annotations) + 1, image_id=image_id, category_id=1, iscrowd=0, bbox=[1, 1, 9, 9], area=81,
                    segmentation=[[1, 1, 10, 1, 10, 10]], keypoints=[5, 5, 2] * count, num_keypoints=count,
                )  # fmt: skip
                annotations.append({**given, **person})
        images = [dict(id=i, file_name=f'{i}.jpg', width=20, height=20) for i in range(1, len(pictures) + 1)]
        content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='person')])
        (tmp_path / 'people.json').write_text(json.dumps(content))
        return DATASETS.build(dict(type=f'icconv_mm.{kind}', ann_file=str(tmp_path / 'people.json'), **options))

    return build


def test_wrong_number_of_keypoints_is_named(write):
    with pytest.raises(InputError, match=r'people.json: annotation 2 of image 1 has 48 values.*expected 51'):
        write([{}, {'keypoints': [5, 5, 2] * 16}])
    with pytest.raises(InputError, match=r'has 51 values.*expected 42 .*14 keypoints'):
        write([{}], kind='BottomupCrowdPoseDataset')


def test_crowds_and_people_without_keypoints_are_masked(write):
    blank = dict(keypoints=[0] * 51, num_keypoints=0)
    crowd = dict(blank, iscrowd=1, segmentation=dict(size=[20, 20], counts=[0, 400]))
    info = write([{}, blank, crowd]).get_data_info(0)
    assert len(info['invalid_segs']) == 2
    assert info['keypoints_visible'].any(1).tolist() == [True, False, False]


def test_pictures_without_people_are_left_out_of_training_unless_kept(write):
    assert len(write([{}], [])) == 1
    dataset = write([{}], [], keep_empty=True)
    assert len(dataset) == 2
    info = dataset.get_data_info(1)
    assert info['keypoints'].shape == (0, 17, 2) and info['img_path'].endswith('2.jpg')
    assert len(write([{}], [], test_mode=True)) == 2


def test_data_mode_is_bottomup(write):
    info = write([{}, {}]).get_data_info(0)
    assert info['keypoints'].shape == (2, 17, 2)
    assert info['keypoints'].dtype == np.float32
