"""The fast evaluation of boxes and masks has the numbers of pycocotools."""

import copy
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('pycocotools')
pytest.importorskip('faster_coco_eval')

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import encode

from icconv_mm.app.evaluation import fast_coco
from icconv_mm.app.evaluation.coco import coco_tables
from icconv_mm.app.evaluation.fast_coco import FastCOCOeval, coco_evaluator

SIZE = 120


def entry_of(kind, box, rng):
    """Returns a box as an entry of a COCO file; of masks an ellipse in it as RLE, or a polygon."""
    x, y, width, height = (float(value) for value in box)
    entry = {'bbox': [x, y, width, height], 'area': width * height, 'iscrowd': 0}
    if kind == 'segm':
        if rng.random() < 0.5:
            corners = [x, y, x + width, y, x + width, y + height, x + width / 3, y + height]
            return entry | {'segmentation': [corners]}
        rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
        inside = ((columns - x) / width - 0.5) ** 2 + ((rows - y) / height - 0.5) ** 2 < 0.25
        rle = encode(np.asfortranarray(inside, dtype=np.uint8))
        return entry | {
            'segmentation': {'size': rle['size'], 'counts': rle['counts'].decode()},
            'area': float(inside.sum()),
        }
    return entry


def drawn(kind, seed):
    """Returns annotations and predictions: crowds, images without either, a class without either, equal scores."""
    rng = np.random.default_rng(seed)
    truth, predictions = [], []
    for image in range(1, 13):
        for _ in range(rng.integers(0, 7) * (image % 4 > 0)):
            side = rng.choice([12, 40, 100], 2) * rng.uniform(0.7, 1, 2)
            box = [*rng.uniform(0, SIZE - side), *side]
            entry = entry_of(kind, box, rng) | {'image_id': image, 'category_id': int(rng.choice([3, 5, 8]))}
            truth.append(entry | {'id': len(truth), 'iscrowd': int(rng.random() < 0.2)})  # pycocotools: 0 is unmatched
            for _ in range(rng.integers(0, 4)):
                near = np.clip(box + rng.normal(0, 3, 4), 1, SIZE)
                number = entry['category_id'] if rng.random() < 0.8 else int(rng.choice([3, 5, 8, 9]))
                predictions.append(entry_of(kind, near, rng) | {'image_id': image, 'category_id': number})
        if image % 3 == 0:
            far = [*rng.uniform(0, 60, 2), 20, 20]
            predictions.append(entry_of(kind, far, rng) | {'image_id': image, 'category_id': 3})
    for prediction in predictions:
        del prediction['area'], prediction['iscrowd']
        prediction['score'] = round(float(rng.random()), 1)
        if kind == 'segm':
            prediction.pop('bbox')  # as mmdet does: areas are those of masks
    if kind == 'segm':
        predictions = [prediction for prediction in predictions if isinstance(prediction['segmentation'], dict)]
    coco = COCO()
    coco.dataset = {
        'images': [{'id': image, 'height': SIZE, 'width': SIZE} for image in range(1, 13)],
        'categories': [{'id': number, 'name': f'class {number}'} for number in (3, 5, 7, 8, 9)],
        'annotations': truth,
    }
    coco.createIndex()
    return coco, coco.loadRes(predictions)


def evaluated(kind, evaluator, options):
    for name, value in options.items():
        setattr(evaluator.params, name, value)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator


OPTIONS = [
    {},
    {'maxDets': [1, 2, 3]},
    {'maxDets': [100, 300, 1000]},
    {'maxDets': [3, 100, 1]},
    {'iouThrs': np.array([0.3])},
    {'iouThrs': np.array([0.75, 0.5])},
    {'areaRng': [[0, 1e10], [0, 300.0], [300.0, 2000.0], [2000.0, 1e10]]},
    {'catIds': [8, 3]},
    {'imgIds': [4, 2, 9, 1]},
    {'useCats': 0},
]


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_numbers_are_those_of_pycocotools(kind, options):
    counted = 0
    for seed in range(4):
        truth, predictions = drawn(kind, seed)
        slow, fast = (
            evaluated(kind, evaluator(copy.deepcopy(truth), copy.deepcopy(predictions), kind), copy.deepcopy(options))
            for evaluator in (COCOeval, coco_evaluator)
        )
        assert type(fast) is FastCOCOeval
        for key in ('precision', 'recall', 'scores'):
            assert fast.eval[key].shape == slow.eval[key].shape
            np.testing.assert_allclose(fast.eval[key], slow.eval[key], rtol=0, atol=1e-12)
        np.testing.assert_allclose(fast.stats, slow.stats, rtol=0, atol=1e-12)
        counted += int((slow.eval['precision'] > 0).sum())
        if options.get('useCats', 1):
            tables = [coco_tables(evaluator, 'AP') for evaluator in (slow, fast)]
            assert tables[0].table.columns == tables[1].table.columns and tables[0].iou == tables[1].iou
            for row, other in zip(tables[0].table.rows, tables[1].table.rows, strict=True):
                assert row[:2] == other[:2]
                values, others = (np.array(cells[2:], dtype=float) for cells in (row, other))  # None becomes NaN
                np.testing.assert_allclose(values, others, rtol=0, atol=1e-12)
            assert tables[0].curves.keys() == tables[1].curves.keys() and tables[0].curves
            for name, curve in tables[0].curves.items():
                np.testing.assert_allclose(tables[1].curves[name], curve, rtol=0, atol=1e-12)
            for name, (scores, hits, total) in tables[0].matches.items():
                other = tables[1].matches[name]
                assert total == other[2] and sorted(zip(scores, hits)) == sorted(zip(*other[:2])), name
    assert counted > 100


@pytest.mark.parametrize('index', ['imgs', 'cats', 'anns'])
@pytest.mark.parametrize('number', [1.5, 2**60])
def test_ids_that_cpp_would_round_are_evaluated_by_pycocotools(index, number):
    truth, predictions = drawn('bbox', 0)
    assert type(coco_evaluator(truth, predictions, 'bbox')) is FastCOCOeval
    getattr(truth, index)[number] = {}
    assert type(coco_evaluator(truth, predictions, 'bbox')) is COCOeval


def test_pycocotools_evaluates_where_the_library_is_absent(monkeypatch):
    monkeypatch.setattr(fast_coco, 'COCOeval_faster', None)
    assert type(coco_evaluator(*drawn('bbox', 0), 'bbox')) is COCOeval


def test_the_import_prints_nothing_and_leaves_pycocotools_as_it_is():
    code = (
        'import sys, pycocotools.coco as c, pycocotools.cocoeval as e, pycocotools.mask as m\n'
        'before = [dict(vars(x)) for x in (c, e, m, c.COCO, e.COCOeval)]\n'
        'import icconv_mm.app.evaluation.fast_coco, faster_coco_eval\n'
        'assert before == [dict(vars(x)) for x in (c, e, m, c.COCO, e.COCOeval)]\n'
        'assert [sys.modules[x.__name__] for x in (c, e, m)] == [c, e, m]'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, '', '')
