"""Every function of both floors reads a shape as (height, width), a size as (width, height), and images as BGR."""

import importlib
import inspect
import pkgutil
import re

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from small_network import write_network

import icconv_mm
from icconv_mm import load
from icconv_mm.app.adapters import detection, multitask, pose
from icconv_mm.app.annotations import brush, map_conversion, segmentations
from icconv_mm.app.annotations.dataset import Annotation, Dataset
from icconv_mm.app.annotations.writers import yolo
from icconv_mm.app.prediction import checkpoint
from icconv_mm.app.runs import images
from icconv_mm.app.training import own_data_text
from icconv_mm.datasets import loading, seg_maps
from icconv_mm.tasks.pose import codec, multiscale, targets

BGR = 10, 60, 200
IMAGE = np.full((3, 5, 3), BGR, np.uint8)
MASK = np.zeros((3, 5), np.uint8)
MASK[:2, 1:5] = 1  # columns 1 to 4 of rows 0 and 1
POLYGON = [[1, 0, 5, 0, 5, 2, 1, 2]]
WHOLE = np.eye(2, 3)
POINT, ONE = np.float32([[[4, 1]]]), np.ones((1, 1))  # a keypoint in the last column
NAMES = {'size', 'shape', 'image_size', 'input_size', 'heatmap_size', 'image', 'mask'}
OF_IMAGES = re.compile(r'(tuple\[int, int\]|np\.ndarray|[\w.]*Sequence\[int\])( \| .*)?')

BY_AREA = {  # only the area counts
    'app.training.memory.training_memory',
    'app.training.own_data.fitting_batch',
}


def measure(_):
    annotation = Annotation('', segmentation=POLYGON)
    return segmentations.measure(annotation, (5, 3)) == '' and annotation.box == [1, 0, 4, 2] and annotation.area == 8


def rotate(_):
    """Orientation 6 turns an image of 5 x 3 pixels clockwise: its left column becomes the top row."""
    annotation = Annotation('', box=[0, 0, 1, 3])
    segmentations.rotate(annotation, 6, (5, 3))
    return annotation.box == [0, 0, 3, 1]


def enlarged(module, **instances):
    from mmengine.structures import BaseDataElement, InstanceData

    values = {name: torch.tensor(value) for name, value in instances.items()}
    sample = BaseDataElement(pred_instances=InstanceData(**values), metainfo={'ori_shape': (3, 5)})
    module.Adapter().enlarge(sample, (6, 10))
    (value,) = (getattr(sample.pred_instances, name).flatten().tolist() for name in instances)
    return sample.ori_shape == (6, 10) and value


def enlarged_together(_):
    from mmengine.structures import BaseDataElement

    sample = BaseDataElement(metainfo={'ori_shape': (3, 5)})
    sample.map = BaseDataElement(metainfo={'ori_shape': (3, 5)})
    multitask.Adapter({'map': None}).enlarge(sample, (6, 10))
    return sample.ori_shape == sample.map.ori_shape == (6, 10)


def visualized(folder):
    from mmengine.structures import BaseDataElement

    visualizer = multitask.MultiTaskVisualizer(name='shapes')
    visualizer.add_datasample('', IMAGE[..., ::-1], BaseDataElement(), False, False, out_file=str(folder / 'drawn.png'))
    drawn = cv2.imread(str(folder / 'drawn.png'))
    return drawn.shape == (3, 5, 3) and (drawn == BGR).all()


def read_maps(folder):
    Image.fromarray(MASK).save(folder / 'map.png')
    read = [
        seg_maps.read_seg_map(folder / 'map.png', (5, 3)),
        map_conversion.read_class_ids(folder / 'map.png', None, (5, 3)),
    ]
    with pytest.raises(icconv_mm.errors.InputError, match='3 x 5'):
        seg_maps.read_seg_map(folder / 'map.png', (3, 5))
    return all((labels == MASK).all() for labels in read)


def unrotated(folder):
    exif = Image.Exif()
    exif[0x112] = 6  # the left column becomes the top row
    Image.fromarray(IMAGE).save(folder / 'image.jpg', exif=exif)
    return 'orientation 6' in loading.unrotated_labels_hint(str(folder / 'image.jpg'), (3, 5), (5, 3))


def write_image(folder):
    images.write_image(IMAGE, folder / 'image.png')
    return (np.asarray(Image.open(folder / 'image.png')) == BGR[::-1]).all()


def predictor(folder):
    result = load(write_network(folder / 'network.onnx', 'map'), device='cpu')(IMAGE)
    return (result.image == IMAGE).all() and result.seg_map.shape == (3, 5)


def people(_):
    """Heatmaps of 10 x 6 pixels for an input of 20 x 12: their last column is the right border."""
    heatmaps, tags = torch.zeros(1, 6, 10), torch.zeros(1, 6, 10, 1)
    heatmaps[0, 2, 9] = 1
    decoder = codec.AECodec((40, 24), (20, 12))
    one = decoder.decode((heatmaps, tags), (20, 12))[0]
    batch = decoder.batch_decode(heatmaps[None], tags[None], (20, 12))[0][0]
    return one.shape == (1, 1, 2) and one[0, 0, 0] > one[0, 0, 1] and (one == batch).all()


def source(_):
    with pytest.raises(icconv_mm.errors.InputError, match='0 x 3 pixels'):
        multiscale.check_source((0, 3))
    return multiscale.check_source((5, 3)) is None


def keypoints(_):
    """A point in the last column is inside, one in a fourth row is not."""
    boxes = [segmentations.box_of_keypoints([x, y, 2, x - 1, y - 1, 2], (5, 3)) for x, y in ((4, 1), (1, 4))]
    return boxes[0] is not None and boxes[0][0] + boxes[0][2] > 4


def seg_map_defect(_):
    defects = [seg_maps.seg_map_defect(MASK, 2, shape=shape) for shape in ((3, 5), (5, 3))]
    return defects[0] is None and '5 x 3 pixels' in defects[1]


CALLS = {
    'load': predictor,
    'app.adapters.base.TaskAdapter.enlarge': enlarged_together,
    'app.adapters.detection.Adapter.enlarge': lambda _: enlarged(detection, bboxes=[[1.0, 0, 4, 2]]) == [2, 0, 8, 4],
    'app.adapters.multitask.Adapter.enlarge': enlarged_together,
    'app.adapters.multitask.MultiTaskVisualizer.add_datasample': visualized,
    'app.adapters.pose.Adapter.enlarge': lambda _: enlarged(pose, keypoints=[[[2.0, 1]]]) == [4.5, 2.5],
    'app.annotations.brush.encode_brush': lambda _: (
        brush.decode_brush(brush.encode_brush(MASK), (5, 3)) == MASK
    ).all(),
    'app.annotations.brush.decode_brush': lambda _: (
        brush.decode_brush(brush.encode_brush(MASK), (5, 3)) == MASK
    ).all(),
    'app.annotations.map_conversion.read_class_ids': read_maps,
    'app.annotations.segmentations.as_segmentation': lambda _: (
        segmentations.as_segmentation(MASK, (5, 3), Dataset('', ''), '')['size'] == [3, 5]
    ),
    'app.annotations.segmentations.rle_of': lambda _: segmentations.rle_of(POLYGON, (5, 3))['size'] == [3, 5],
    'app.annotations.segmentations.mask_of': lambda _: (segmentations.mask_of(POLYGON, (5, 3)) == MASK).all(),
    'app.annotations.segmentations.is_area': lambda _: (
        segmentations.is_area(15, (5, 3)) and not segmentations.is_area(1e3, (5, 3))
    ),
    'app.annotations.segmentations.measure': measure,
    'app.annotations.segmentations.box_of_keypoints': keypoints,
    'app.annotations.segmentations.is_outside': lambda _: (
        segmentations.is_outside(np.array([[5.5, 1], [1, 5.5]]), (5, 3)).tolist() == [False, True]
    ),
    'app.annotations.segmentations.rotate': rotate,
    'app.annotations.writers.yolo.polygons_of': lambda _: np.ptp(yolo.polygons_of(MASK)[0], 0).tolist() == [4, 2],
    'app.prediction.checkpoint.resized_labels': lambda _: checkpoint.resized_labels(MASK, (6, 10)).shape == (6, 10),
    'app.runs.images.write_image': write_image,
    'app.runs.images.shrunk': lambda _: images.shrunk(np.zeros((6, 10, 3), np.uint8), 5).shape == (3, 5, 3),
    'app.training.own_data_text.crop_of': lambda _: own_data_text.crop_of((640, 320)) == (416, 256),
    'datasets.loading.unrotated_labels_hint': unrotated,
    'datasets.seg_maps.read_seg_map': read_maps,
    'datasets.seg_maps.seg_map_defect': seg_map_defect,
    'tasks.pose.codec.AECodec.batch_decode': people,
    'tasks.pose.codec.AECodec.decode': people,
    'tasks.pose.multiscale.check_source': source,
    'tasks.pose.multiscale.image_pyramid': lambda _: (
        multiscale.image_pyramid((5, 3), (64, 64), (1,)).sizes[0] == (128, 64)
    ),
    'tasks.pose.multiscale.resize': lambda _: multiscale.resize(torch.zeros(1, 1, 3, 5), (6, 10)).shape[-2:] == (6, 10),
    'tasks.pose.targets.gaussian_heatmaps': lambda _: (
        targets.gaussian_heatmaps(POINT, ONE, (5, 3), 1).shape == (1, 3, 5)
    ),
    'tasks.pose.targets.keypoint_indices': lambda _: (
        targets.keypoint_indices(POINT, ONE, (5, 3)).tolist() == [[[9, 1]]]
    ),
    'tasks.pose.targets.ignored_region': lambda _: (targets.ignored_region([POLYGON], (5, 3)) == MASK).all(),
    'tasks.pose.targets.valid_mask': lambda _: (targets.valid_mask([POLYGON], (5, 3), WHOLE, (5, 3)) == 1 - MASK).all(),
}


def functions_of_images():
    """Yields names of functions with an image, a size or a shape of one image among their parameters."""
    for module in pkgutil.walk_packages(icconv_mm.__path__, 'icconv_mm.'):
        if module.name.endswith('__main__') or '.ops.' in module.name:  # operators keep torch's `size`
            continue
        members = vars(importlib.import_module(module.name))
        here = {name: value for name, value in members.items() if getattr(value, '__module__', '') == module.name}
        classes = {name: vars(value) for name, value in here.items() if inspect.isclass(value)}
        here |= {f'{name}.{key}': value for name, methods in classes.items() for key, value in methods.items()}
        for name, value in here.items():
            if not inspect.isfunction(value) or any(part.startswith('_') for part in name.split('.')):
                continue
            for parameter in inspect.signature(value).parameters.values():
                if parameter.name in NAMES and OF_IMAGES.fullmatch(
                    inspect.formatannotation(parameter.annotation).replace('numpy', 'np')
                ):
                    yield f'{module.name.removeprefix("icconv_mm.")}.{name}'
                    break


@pytest.mark.parametrize('name', CALLS)
def test_an_image_of_three_by_five(name, tmp_path):
    assert CALLS[name](tmp_path)


def test_no_function_is_left_out():
    assert set(functions_of_images()) == CALLS.keys() - {'load'} | BY_AREA
