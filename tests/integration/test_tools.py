"""The tools on the miniature set: train, test, predict, browse."""

import json
import pickle

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from workspaces import DETECTION, INSTANCE, SEMANTIC, TINY, short

pytestmark = pytest.mark.slow

IMAGES = TINY.val


def coco_ap(annotations, results, kind='bbox'):
    evaluation = COCOeval(COCO(str(annotations)), COCO(str(annotations)).loadRes(str(results)), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


def test_training_writes_what_users_expect(workspace, detector):
    folder = workspace.root / 'runs/detector'
    assert (folder / 'last_checkpoint').read_text() == detector
    assert (folder / 'faster-rcnn_ic-r18_fpn_miniature.py').is_file()
    losses = workspace.losses('runs/detector')
    assert sorted(losses) == [1, 2, 3, 4]
    assert all(0 < loss < 10 for loss in losses.values())
    assert 'coco/bbox_mAP_50' in workspace.scalars('runs/detector')[-1]


def test_detection_tools(workspace, detector):
    """Test, prediction and evaluation of the predicted file agree on the AP; images are drawn."""
    config, root = workspace.config(DETECTION), workspace.root
    annotations = root / 'data/miniature/annotations/instances_val.json'
    args = ('--work-dir', 'runs/tested', '--show-dir', 'runs/shown', '--out', 'runs/predictions.pkl', *short(1))
    assert workspace.tool('test', config, detector, *args) is None
    tested = json.loads(next((root / 'runs/tested').glob('*/*.json')).read_text())
    assert len(list((root / 'runs/shown').glob('*.jpg'))) == IMAGES
    with open(root / 'runs/predictions.pkl', 'rb') as file:
        assert len(pickle.load(file)) == IMAGES

    args = ('--out-dir', 'runs/predicted', '--batch-size', 3, '--score-thr', 0.1, '--ann-file', annotations)
    assert workspace.tool('infer', config, detector, 'data/miniature/val/*.jpg', *args) is None
    results = root / 'runs/predicted/predictions.json'
    assert coco_ap(annotations, results) == pytest.approx(tested['coco/bbox_mAP'], abs=1e-3)  # logged to 3 digits
    drawn = sorted((root / 'runs/predicted/vis').iterdir())
    assert [path.name for path in drawn] == [f'{i:06d}.jpg' for i in range(1, IMAGES + 1)]
    plain = cv2.imread(str(root / 'data/miniature/val' / drawn[0].name))
    assert np.abs(cv2.imread(str(drawn[0])).astype(int) - plain).max() > 50  # something is drawn

    # so it is without threads that read and draw ahead
    before = {path: path.read_bytes() for path in [results, *drawn]}
    assert workspace.tool('infer', config, detector, 'data/miniature/val/*.jpg', *args, '--workers', 0) is None
    assert {path: path.read_bytes() for path in before} == before

    # without an annotation file the two JSON files fit each other
    assert workspace.tool('infer', config, detector, 'data/miniature/val/000001.jpg', '--out-dir', 'runs/one') is None
    images = COCO(str(root / 'runs/one/images.json'))
    assert [image['file_name'] for image in images.dataset['images']] == ['000001.jpg']
    assert images.cats[1]['name'] == 'person'
    assert len(images.loadRes(str(root / 'runs/one/predictions.json')).anns) > 0


def test_training_without_validation_and_metrics_in_a_file(workspace, detector):
    config, root = workspace.config(DETECTION), workspace.root
    assert workspace.tool('train', config, '--work-dir', 'runs/alone', '--no-validate', *short(1)) is None
    assert [line for line in workspace.scalars('runs/alone') if 'coco/bbox_mAP' in line] == []
    args = ('--work-dir', 'runs/metrics', '--out', 'runs/metrics.json', '--out-item', 'metrics', *short(1))
    assert workspace.tool('test', config, detector, *args) is None
    written = json.loads((root / 'runs/metrics.json').read_text())
    logged = json.loads(next((root / 'runs/metrics').glob('*/*.json')).read_text())
    assert written['coco/bbox_mAP'] == pytest.approx(logged['coco/bbox_mAP'], abs=1e-3)


def test_predictions_of_the_deployed_model(workspace, detector):
    """They are those of the model: the best scores, as near ties may change places."""
    config, root = workspace.config(DETECTION), workspace.root
    scores = []
    for name, extra in (('eager', ()), ('deployed', ('--deploy',))):
        out = root / f'runs/{name}.pkl'
        args = ('--work-dir', f'runs/{name}', '--out', out, *extra, *short(1))
        assert workspace.tool('test', config, detector, *args) is None
        with open(out, 'rb') as file:
            scores.append(pickle.load(file)[0]['pred_instances']['scores'][:5])
    assert len(scores[0]) == 5
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-3, atol=1e-3)


def test_test_time_augmentation(workspace, detector):
    """A flip changes scores, so that the predictions differ from the plain ones."""
    config, root = workspace.config(DETECTION), workspace.root
    scores = []
    for name, extra in (('plain', ()), ('tta', ('--tta',))):
        out = root / f'runs/{name}.pkl'
        args = ('--work-dir', 'runs/tta', '--out', out, *extra, *short(1))
        assert workspace.tool('test', config, detector, *args) is None
        with open(out, 'rb') as file:
            scores.append(pickle.load(file)[0]['pred_instances']['scores'])
    assert scores[0].numel() > 0 and scores[1].numel() > 0
    assert scores[0].shape != scores[1].shape or not torch.allclose(scores[0], scores[1])


def test_instance_and_semantic_segmentation(workspace):
    """Mixed precision on a CPU, masks in the JSON file, segmentation maps, browsing."""
    root = workspace.root
    for config, folder in ((INSTANCE, 'instance'), (SEMANTIC, 'semantic')):
        path = workspace.config(config)
        args = ('--work-dir', f'runs/{folder}', '--amp', *short(2))
        assert workspace.tool('train', path, *args) is None
        assert all(np.isfinite(loss) for loss in workspace.losses(f'runs/{folder}').values())
        checkpoint, images = f'runs/{folder}/iter_2.pth', 'data/miniature/val'
        assert workspace.tool('infer', path, checkpoint, images, '--out-dir', f'runs/{folder}/out') is None
        results = json.loads((root / f'runs/{folder}/out/predictions.json').read_text())
        assert all(entry['segmentation']['size'] == [TINY.size, TINY.size] for entry in results)
        assert len(list((root / f'runs/{folder}/out/vis').iterdir())) == IMAGES
        browse = ('--output-dir', f'runs/{folder}/browsed', '--not-show', '--count', 3)
        assert workspace.tool('browse_dataset', path, *browse) is None
        assert len(list((root / f'runs/{folder}/browsed').iterdir())) == 3
    about = COCO(str(root / 'runs/semantic/out/images.json'))
    masks = about.loadRes(str(root / 'runs/semantic/out/predictions.json'))
    total = sum(masks.annToMask(annotation).astype(int) for annotation in masks.imgToAnns[1])
    assert (total == 1).all()  # the classes of an image cover every pixel once
    args = ('--work-dir', 'runs/semantic/tested', '--show-dir', 'runs/semantic/shown', *short(1))
    assert workspace.tool('test', workspace.config(SEMANTIC), 'runs/semantic/iter_2.pth', *args) is None
    assert len(list((root / 'runs/semantic/shown').rglob('*.png'))) == IMAGES


def test_auto_scale_lr(workspace):
    options = {'auto_scale_lr.base_batch_size': 8}
    args = ('--work-dir', 'runs/scaled', '--auto-scale-lr', *short(1, **options))
    assert workspace.tool('train', workspace.config(SEMANTIC), *args) is None
    plain = workspace.tool('train', workspace.config(SEMANTIC), '--work-dir', 'runs/unscaled', *short(1))
    assert plain is None
    scaled, unscaled = (workspace.scalars(f'runs/{name}')[0]['lr'] for name in ('scaled', 'unscaled'))
    assert scaled == pytest.approx(unscaled / 2)
