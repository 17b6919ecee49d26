"""The head that knows the truth of one of its outputs."""

import pytest

pytest.importorskip('mmpose')

import torch
from mmengine.structures import InstanceData
from mmpose.structures import PoseDataSample

from icconv_tools.evidence.oracle import OracleAEHead

JOINTS = torch.tensor([[[20.0, 30.0], [40.0, 50.0]], [[80.0, 30.0], [100.0, 50.0]]])  # of two people
VISIBLE = torch.tensor([[1, 1], [1, 0]])


@pytest.fixture
def predict():
    """Predictions, with maps, from features of noise for a picture twice as large as the input of the network."""

    def run(truth, joints=JOINTS, visible=VISIBLE):
        torch.manual_seed(0)
        decoder = dict(type='icconv_mm.AECodec', input_size=(128, 128), heatmap_size=(64, 64), sigma=1.5)
        head = OracleAEHead(
            truth, in_channels=4, num_keypoints=2, deconv_out_channels=None, deconv_kernel_sizes=None, decoder=decoder
        )
        sample = PoseDataSample(gt_instances=InstanceData(keypoints=joints * 2, keypoints_visible=visible))
        sample.set_metainfo(dict(input_size=(128, 128), input_center=(128, 128), input_scale=(256, 256)))
        feats = [((torch.rand(1, 4, 64, 64),), None)]
        (people,), (maps,) = head.predict(feats, [sample], {'output_heatmaps': True})
        return people, maps

    return run


def test_true_heatmaps_are_at_the_joints(predict):
    _, maps = predict('heatmaps')
    peaks = [(x, y, joint) for joint, y, x in (maps.heatmaps == 1).nonzero().tolist()]
    assert sorted(peaks) == [(20, 30, 0), (40, 50, 1), (80, 30, 0)]


def test_true_tags_tell_people_apart(predict):
    _, maps = predict('tags')
    places = [(0, 30, 20), (1, 50, 40), (0, 30, 80), (1, 50, 100)]
    first, second, other, hidden = (maps.tags[place].item() for place in places)
    assert first == second == hidden and abs(other - first) > 1  # nobody else's second joint is visible


@pytest.mark.parametrize('truth', ['tags', 'heatmaps'])
def test_the_other_output_is_that_of_the_network(predict, truth):
    (_, known), (_, alone) = predict(truth), predict(truth, JOINTS[:0], VISIBLE[:0])
    kept, replaced = ('heatmaps', 'tags') if truth == 'tags' else ('tags', 'heatmaps')
    assert torch.equal(known.get(kept), alone.get(kept)) and known.get(kept).std() > 0
    assert not alone.get(replaced).any() and known.get(replaced).any()


def test_another_truth_is_refused():
    with pytest.raises(ValueError, match="truth must be 'heatmaps' or 'tags', got 'boxes'"):
        OracleAEHead('boxes', in_channels=4, num_keypoints=2)
