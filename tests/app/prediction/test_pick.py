"""Images that are picked to be annotated next."""

import json
import shutil
from types import SimpleNamespace

import labelled
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData

from icconv_mm import apis
from icconv_mm.app.prediction.image_run import FailedImagesError
from icconv_mm.app.prediction.pick import ImageFeatures, pick_images, uncertainty_of, write_picks
from icconv_mm.app.runs.begin import begin
from icconv_mm.errors import ArgumentError


def test_unsure_images_that_differ_are_picked():
    """Of two groups of near twins: the most unsure of each, before any twin of the surest group."""
    features = np.array([[0.0, 0], [0.01, 0], [5, 5], [5, 5.01], [0, 0.02]])
    assert pick_images(np.array([0.9, 0.8, 0.5, 0.4, 0.7]), features, 2) == [0, 2]
    assert pick_images(np.zeros(5), features, 2) == [0, 3], 'without uncertainties, distances decide'
    assert sorted(pick_images(np.full(5, 0.5), features, 9)) == [0, 1, 2, 3, 4], 'no more than there are, none twice'
    same = pick_images(np.array([0.1, 0.9, 0.5]), np.ones((3, 4)), 2)
    assert same[0] == 1 and len(set(same)) == 2


def test_each_pick_is_the_farthest_by_weight():
    """Against the definition, in loops."""
    rng = np.random.default_rng(0)
    weights, features = rng.random(30), rng.normal(size=(30, 5)) * [1, 10, 0.1, 1, 3]
    scaled = (features - features.mean(0)) / features.std(0)
    expected = [int(weights.argmax())]
    while len(expected) < 12:
        values = {
            i: weights[i] * min(np.linalg.norm(scaled[i] - scaled[j]) for j in expected)
            for i in range(30)
            if i not in expected
        }
        expected.append(max(values, key=values.get))
    assert pick_images(weights, features, 12) == expected


@pytest.mark.parametrize(
    ('library', 'sure', 'unsure'),
    [
        ('mmdet', [0.99, 0.01], [0.5, 0.01]),
        ('mmseg', [[[9.0]], [[0.0]], [[-9.0]]], [[[1.0]], [[0.9]], [[-9.0]]]),
        ('mmseg', [[[-9.0]]], [[[0.1]]]),
        ('mmseg', [[[9.0]]], [[[0.1]]]),
        ('mmpretrain', [0.9, 0.05, 0.05], [0.5, 0.45, 0.05]),
        ('mmpretrain', [1.0], [1.0]),
        ('mmpose', [0.95], [0.4]),
    ],
)
def test_the_uncertainty_of_each_task(library, sure, unsure):
    pytest.importorskip(library)
    from icconv_mm.app.adapters.choose import adapter_of

    adapter = adapter_of(library)

    def of(values):
        values = torch.tensor(values)
        sample = BaseDataElement()
        if library == 'mmseg':
            from mmseg.models.segmentors.base import BaseSegmentor

            head = SimpleNamespace(align_corners=False, decode_head=SimpleNamespace(threshold=0.5))
            (sample,) = BaseSegmentor.postprocess_result(head, values[None])
        elif library == 'mmpretrain':
            sample.pred_score = values
        elif library == 'mmpose':
            none = np.zeros((len(values), 2))
            sample.pred_instances = InstanceData(keypoints=none, keypoint_scores=none, bbox_scores=values.numpy())
        else:
            labels = torch.zeros(len(values), dtype=torch.long)
            sample.pred_instances = InstanceData(bboxes=torch.zeros(len(values), 4), scores=values, labels=labels)
        return uncertainty_of({'': adapter}, sample)

    assert 0 <= of(sure) <= of(unsure) <= 1
    assert of(sure) < of(unsure) or (len(sure) == len(unsure) == 1 and library == 'mmpretrain')
    if library in ('mmdet', 'mmpose'):
        assert of([]) == 0.0


def test_features_are_means_of_the_last_map():
    model = torch.nn.Module()
    model.backbone = torch.nn.Conv2d(3, 4, 1)
    features, images = ImageFeatures(model), torch.rand(2, 3, 5, 6)
    maps = [model.backbone(images), model.backbone(images.flip(3))]  # an image at two scales, or flipped
    torch.testing.assert_close(features.take(2), torch.stack([feature.mean((2, 3)) for feature in maps]).mean(0))
    model.backbone(torch.rand(2, 3, 5, 6))
    features.clear()  # its heads have failed
    with pytest.raises(ArgumentError, match=r'^pick: the backbone returns nothing for each image'):
        features.take(2)
    with pytest.raises(ArgumentError, match=r'^pick: Identity has no backbone'):
        ImageFeatures(torch.nn.Identity())


@pytest.mark.parametrize('shape', [(2, 4), (2, 9, 4), (2, 4, 3, 3)])
def test_features_of_vectors_and_of_tokens(shape):
    """As ConvNeXt and vision transformers of mmpretrain return."""
    model = torch.nn.Module()
    model.backbone = torch.nn.Identity()
    features = ImageFeatures(model)
    model.backbone(torch.full(shape, 0.5))
    assert features.take(2).tolist() == [[0.5] * 4] * 2


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    """A config of boxes, a checkpoint of random weights, and the folder of the images."""
    pytest.importorskip('mmdet')
    root = tmp_path_factory.mktemp('pick')
    data = labelled.voc(root / 'data')
    options = dict(backbone='small', size=64, epochs=1, pretrained='none', say=lambda line: None)
    cfg = apis.config_for(data, 'detection', work_dir=root / 'run', **options)
    torch.manual_seed(0)
    model = begin(cfg.copy()).build_model()
    torch.save({'state_dict': model.state_dict()}, root / 'random.pth')
    return cfg.filename, str(root / 'random.pth'), data


def test_picked_images_are_listed_shown_and_written_for_another_tool(network, tmp_path):
    config, checkpoint, data = network
    options = dict(draw=False, score_thr=0.0, device='cpu')
    written = apis.infer(config, checkpoint, str(data / 'JPEGImages'), str(tmp_path), pick=2, to='coco', **options)
    listed = written['pick'].read_text().splitlines()
    assert len(listed) == 2 and all((data / 'JPEGImages').resolve() in type(data)(path).parents for path in listed)
    page = written['pick.html'].read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == 2 and all(path in page for path in listed)
    (coco,) = (path for path in written['coco'].rglob('*.json') if 'annotations' in path.read_text())
    names = {image['file_name'].rpartition('/')[2] for image in json.loads(coco.read_text())['images']}
    assert names == {path.rpartition('/')[2] for path in listed}
    whole = json.loads(written['images'].read_text())['images']
    assert len(whole) == len(list((data / 'JPEGImages').iterdir())) > 2, 'predictions.json has all images'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(pick=0), 'pick: expected 1 or more, got 0'),
        (dict(pick=1, tile=64), 'pick: compares whole images, not tiles'),
        (dict(pick=1, shard=(1, 2)), 'pick: .*run it without --shard and torchrun'),
    ],
)
def test_what_cannot_be_picked_is_refused(network, tmp_path, options, message):
    config, checkpoint, data = network
    with pytest.raises(ArgumentError, match=message):
        apis.infer(config, checkpoint, str(data / 'JPEGImages'), str(tmp_path), device='cpu', **options)


def test_an_exported_file_has_no_features(tmp_path):
    with pytest.raises(ArgumentError, match=r'^pick: .*network\.onnx has no features to compare images by'):
        apis.infer(None, str(tmp_path / 'network.onnx'), str(tmp_path), str(tmp_path / 'out'), pick=1)


def test_images_that_fail_are_all_named(network, tmp_path):
    config, checkpoint, data = network
    images = tmp_path / 'images'
    shutil.copytree(data / 'JPEGImages', images)
    for name in ('bad0.png', 'bad1.png'):
        (images / name).write_bytes(b'no image')
    with pytest.raises(FailedImagesError, match=r'2 of 5 images failed(.|\n)*bad0\.png(.|\n)*bad1\.png'):
        apis.infer(config, checkpoint, str(images), str(tmp_path / 'out'), pick=1, device='cpu', draw=False)
    assert len((tmp_path / 'out' / 'pick.txt').read_text().splitlines()) == 1


def test_names_are_escaped_on_the_page(tmp_path):
    image = np.zeros((600, 900, 3), np.uint8)
    files = write_picks(tmp_path, [(tmp_path / '<b>&.png', 0.5)], [image])
    page = files['pick.html'].read_text()
    assert '&lt;b&gt;&amp;.png' in page and '<b>' not in page
