"""COCO's evaluation of boxes and masks: pycocotools', and the same in C++ where faster-coco-eval is installed."""

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

try:
    from faster_coco_eval import COCOeval_faster
except ImportError:
    COCOeval_faster = None

_LARGEST_ID = 2**53  # C++ has ids as doubles


class FastCOCOeval(COCOeval):
    """Evaluates as pycocotools does, several times as fast: each class on the images that have it.

    ``evalImgs`` has the images of each class as in pycocotools, but of the first IoU and area range alone.
    """

    def evaluate(self) -> None:
        """Matches predictions with annotations, and accumulates the matches."""
        params = self.params
        params.imgIds, params.maxDets = np.unique(params.imgIds).tolist(), sorted(params.maxDets)
        if params.useCats:
            params.catIds = np.unique(params.catIds).tolist()
        self._prepare()  # segmentations become RLE
        images = defaultdict(list)
        for image, number in sorted({*self._gts, *self._dts}):
            images[number].append(image)
        parts = [([number], images[number]) for number in params.catIds]
        if not params.useCats:
            parts = [(params.catIds, params.imgIds)]
        levels, recalls = len(params.iouThrs), len(params.recThrs)
        sizes = len(parts), len(params.areaRng), len(params.maxDets)
        shapes = {'precision': (levels, recalls), 'scores': (levels, recalls), 'recall': (levels,)}
        self._arrays = {key: np.full((*shape, *sizes), -1.0) for key, shape in shapes.items()}
        self.ious = defaultdict(list)
        for k, (classes, class_images) in enumerate(parts):
            if class_images:
                accumulated = self._accumulated(classes, class_images)
                for key, array in self._arrays.items():
                    array[..., k, :, :] = accumulated[key][..., 0, :, :]
        self.evalImgs = self._first_matches(images) if params.useCats else []

    def accumulate(self) -> None:
        """Sets ``eval`` of the last evaluation."""
        self.eval = {'params': self.params, 'counts': list(self._arrays['precision'].shape), **self._arrays}

    def _accumulated(self, classes: Sequence[int], images: Sequence[int]) -> dict[str, Any]:
        evaluator = COCOeval_faster(iouType=self.params.iouType)
        for name in ('useCats', 'iouThrs', 'recThrs', 'areaRng', 'maxDets'):
            setattr(evaluator.params, name, getattr(self.params, name))
        evaluator.params.catIds, evaluator.params.imgIds = classes, images
        evaluator.cocoGt, evaluator.cocoDt = (
            _Annotations(
                [entry for image in images for number in classes for entry in pairs.get((image, number), ())], sizes
            )
            for pairs, sizes in ((self._gts, self.cocoGt.imgs), (self._dts, self.cocoDt.imgs))
        )
        evaluator.evaluate()
        self.ious |= evaluator.ious
        return evaluator.eval

    def _first_matches(self, images: Mapping[int, Sequence[int]]) -> list[dict | None]:
        """Returns pycocotools' matches of each class and image; C++ does not return its own."""
        params, area, most = self.params, self.params.areaRng[0], self.params.maxDets[-1]
        first = copy.copy(self)
        first.params = copy.copy(params)
        first.params.iouThrs = params.iouThrs[:1]
        matches = []
        for number in params.catIds:
            with_class = {image: first.evaluateImg(image, number, area, most) for image in images[number]}
            matches += [with_class.get(image) for image in params.imgIds]
        return matches


class _Annotations:
    """What faster-coco-eval requests of a COCO: annotations that are chosen already, and the sizes of images."""

    def __init__(self, annotations: list[dict], imgs: Mapping[int, Mapping]) -> None:
        self.annotations, self.imgs = annotations, imgs

    def getAnnIds(self, **chosen: Any) -> list[dict]:
        return self.annotations

    def loadAnns(self, annotations: list[dict]) -> list[dict]:
        return annotations


def coco_evaluator(truth: Any, predictions: Any, kind: str) -> COCOeval:
    """Returns the evaluation of ``bbox`` or ``segm``: the fast one, if it is installed and ids are integers."""
    is_fast = COCOeval_faster is not None and all(map(_are_integers, (truth.imgs, truth.cats, truth.anns)))
    return (FastCOCOeval if is_fast else COCOeval)(truth, predictions, kind)


def _are_integers(ids: Any) -> bool:
    return all(isinstance(number, int) and abs(number) <= _LARGEST_ID for number in ids)
