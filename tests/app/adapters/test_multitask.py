"""Images of all tasks: labels beside predictions, where the image is larger or smaller than the file as well."""

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from icconv_mm.app.adapters.multitask import Adapter, MultiTaskVisualizer
from icconv_mm.tasks.multitask import MultiTaskSample
from icconv_mm_runtime.drawing import draw

META = dict(objects=dict(classes=('',), palette=[(255, 0, 0)]), ground=dict(classes=('',), palette=[(0, 0, 255)]))
RED, BLUE = (lambda part: part[..., 0] > 200), (lambda part: part[..., 2] > 100)


def sample(**metainfo):
    objects = DetDataSample(gt_instances=InstanceData(bboxes=torch.tensor([[4.0, 20, 90, 60]]), labels=torch.zeros(1)))
    instances = InstanceData(bboxes=torch.tensor([[5.0, 30, 80, 70]] * 2), labels=torch.zeros(2, dtype=torch.long))
    instances.scores = torch.tensor([0.9, 0.1])
    objects.pred_instances = instances
    ground = SegDataSample(pred_sem_seg=PixelData(data=torch.zeros(1, 100, 200, dtype=torch.long)))
    return MultiTaskSample(objects=objects, ground=ground, metainfo=dict(ori_shape=(100, 200), **metainfo))


def test_labels_beside_predictions(tmp_path):
    visualizer = MultiTaskVisualizer()
    visualizer.dataset_meta = META
    image, file = np.zeros((100, 200, 3), np.uint8), str(tmp_path / 'drawn.png')
    visualizer.add_datasample('image', image, sample(), out_file=file)
    labels, predicted = np.split(cv2.imread(file)[..., ::-1], 2, axis=1)
    assert RED(labels).any() and RED(predicted).any() and not BLUE(labels).any() and BLUE(predicted).mean() > 0.8
    visualizer.add_datasample('image', image, sample(), draw_gt=False, pred_score_thr=0.95, out_file=file)
    predicted = cv2.imread(file)[..., ::-1]
    assert predicted.shape == image.shape and not RED(predicted).any() and BLUE(predicted).all()


def test_labels_of_the_file_are_drawn_on_the_smaller_image():
    adapter = Adapter({})
    content = adapter.annotations(sample(labels_of_file=True), META)
    y, x = np.nonzero(RED(draw(np.zeros((50, 100, 3), np.uint8), content)[..., ::-1]))
    assert abs(x.max() - 45) <= 1 and abs(y.max() - 30) <= 1  # lines are of two pixels
