import copy
import json

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.structures import InstanceData

from icconv_mm.app.adapters.base import NotSupportedError
from icconv_mm_runtime.coco import coco_records
from icconv_mm_runtime.drawing import draw


@pytest.fixture
def adapter(mmpose):
    from icconv_mm.app.adapters.pose import Adapter

    return Adapter()


@pytest.fixture
def predictions(coco_meta):
    from mmpose.structures import PoseDataSample

    rng = np.random.RandomState(0)
    keypoints = rng.uniform((10, 10), (140, 90), (2, 17, 2)).astype(np.float32)
    scores = np.full((2, 17), 0.9, dtype=np.float32)
    sample = PoseDataSample(metainfo=dict(ori_shape=(100, 150)))
    sample.pred_instances = InstanceData(
        keypoints=keypoints, keypoint_scores=scores, keypoints_visible=scores, bbox_scores=np.array([0.9, 0.2])
    )
    return sample


def test_coco_records_can_be_written_and_loaded(adapter, predictions, tmp_path):
    from pycocotools.coco import COCO

    result = adapter.predictions(predictions)
    records = coco_records({'kind': 'pose'}, result, 5, 0.0, [1])
    assert [len(record['keypoints']) for record in records] == [51, 51]
    assert records[0]['score'] == 0.9 and records[0]['image_id'] == 5
    np.testing.assert_allclose(records[0]['keypoints'][:2], predictions.pred_instances.keypoints[0, 0], atol=1e-3)
    assert len(coco_records({'kind': 'pose'}, result, 5, 0.5, [1])) == 1
    truth = dict(images=[dict(id=5)], annotations=[], categories=[dict(id=1, name='person')])
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    (tmp_path / 'found.json').write_text(json.dumps(records))
    assert len(COCO(str(tmp_path / 'truth.json')).loadRes(str(tmp_path / 'found.json')).anns) == 2


@pytest.mark.parametrize(('score_thr', 'drawn'), [(0.1, 2), (0.5, 1), (0.95, 0)])
def test_people_above_the_threshold_are_drawn(adapter, predictions, coco_meta, score_thr, drawn):
    image = draw(np.zeros((100, 150, 3), dtype=np.uint8), adapter.drawing(predictions, coco_meta, score_thr))
    shown = [
        np.mean([image[int(y), int(x)].max() > 30 for x, y in person])
        for person in predictions.pred_instances.keypoints
    ]
    assert sum(share > 0.9 for share in shown) == drawn
    assert len(predictions.pred_instances) == 2  # the sample itself is not changed


def test_annotations_of_resized_images_are_drawn_where_they_belong(adapter, coco_meta, sample):
    from icconv_mm.tasks.pose import MultiScaleResize, PackMultiScaleInputs

    sample['img'][:] = 0
    packed = PackMultiScaleInputs()(MultiScaleResize((64, 64), [2, 1], size_divisor=32)(sample))
    original = copy.deepcopy(packed['data_samples'].gt_instances.keypoints)
    image = np.ascontiguousarray(packed['inputs'][0].permute(1, 2, 0).numpy())
    drawn = draw(image, adapter.annotations(packed['data_samples'], coco_meta))
    y, x = np.nonzero(drawn.max(-1) > 30)
    people = 1.28 * original[:2][sample['keypoints_visible'][:2] > 0]  # 100 pixels become 64 at scale 1, 128 at scale 2
    np.testing.assert_allclose([x.min(), y.min()], people.min(0), atol=8)
    np.testing.assert_allclose([x.max(), y.max()], people.max(0), atol=8)
    np.testing.assert_array_equal(packed['data_samples'].gt_instances.keypoints, original)


def test_tta_is_the_published_multi_scale_test(adapter, repo):
    cfg = Config.fromfile(repo / 'configs/pose/ae_r50_8xb16-300e_coco-640x640.py', import_custom_modules=False)
    cfg.model.test_cfg.flip_test = False
    adapter.enable_tta(cfg)
    assert cfg.test_dataloader.dataset.pipeline[1].scales == [2, 1, 0.5]
    assert cfg.val_dataloader.dataset.pipeline[1].scales == [1]
    assert cfg.model.test_cfg.flip_test
    del cfg.test_dataloader.dataset.pipeline[1]
    with pytest.raises(
        NotSupportedError, match=r'^tta: .*640x640\.py: expected one icconv_mm\.MultiScaleResize in .*, found 0$'
    ):
        adapter.enable_tta(cfg)


def test_images_without_people_before_those_with(mmpose):
    """mmpose's datasets of a test have nothing but the path for them."""
    from icconv_mm.app.adapters.pose import _has_keypoints

    class Images(list):
        get_data_info = list.__getitem__

    person = dict(keypoints=np.array([[[3.0, 4.0]]]), keypoints_visible=np.ones((1, 1)))
    assert _has_keypoints(Images([dict(img_path='a.jpg'), person]))
    assert not _has_keypoints(Images([dict(img_path='a.jpg')]))


def test_a_dataset_names_its_classes_like_a_checkpoint(adapter):
    """mmpose's datasets have ``CLASSES``, which a checkpoint has in lower case; the thresholds are found by them."""
    categories = [dict(id=1, name='mouse')]
    assert adapter.class_names({'CLASSES': categories}) == adapter.class_names({'classes': categories}) == ('mouse',)
    assert adapter.class_names({}) == ('person',)
