"""Every function of the runtime reads a shape as (height, width), a size as (width, height), and images as BGR."""

import importlib
import inspect
import pkgutil

import cv2
import numpy as np
import pytest
from described import RULE, described
from PIL import Image as PILImage

import icconv_mm_runtime
from icconv_mm_runtime import Session, arrays, benchmark, coco, drawing, images, outputs, tiling, warping

BGR = 10, 60, 200
IMAGE = np.full((3, 5, 3), BGR, np.uint8)
PNG = cv2.imencode('.png', IMAGE)[1].tobytes()
MASK = np.ones((3, 5), bool)
TASK = {
    'name': '', 'kind': 'semantic', 'outputs': ['logits'], 'classes': ['blue', 'green', 'red'], 'palette': None,
    'align_corners': False, 'threshold': None,
}  # fmt: skip
MAP = {'seg_map': np.full((3, 5), 2)}
OBJECTS = {'boxes': np.float32([[0, 0, 2, 3]]), 'scores': np.float32([0.9]), 'labels': np.array([0])}
MEANT = {'image', 'images', 'mask', 'sample', 'samples', 'size', 'shape', 'image_size', 'input_size', 'input_shape'}


def session():
    """A network whose logits of blue, green and red are the image's channels."""
    return Session.of(described(tasks=[TASK]), lambda arrays: {'logits': arrays['image'].astype('f4')}, 'net.onnx')


def is_image(image, shape):
    return image.shape == (*shape, 3) and (image == BGR).all()


def is_result(result):
    return is_image(result.image, (3, 5)) and result.seg_map.shape == (3, 5) and (result.seg_map == 2).all()


def time_steps():
    seen = []
    benchmark.time_steps([seen.append] * 3, [IMAGE], 1, 1)
    return is_image(seen[0], (3, 5))


def coco_records():
    sizes = [coco.coco_records(TASK, MAP, 1, shape=shape)[0]['segmentation']['size'] for shape in (None, (6, 10))]
    return sizes == [[3, 5], [6, 10]]


def draw():
    """Colours are R, G and B, as those of OpenMMLab's palettes."""
    red = drawing.draw(IMAGE, drawing.Drawing(seg_map=MAP['seg_map'], colors=[(0, 0, 0), (0, 0, 0), BGR[::-1]]))
    black = drawing.DrawnObject((0, 0, 0), box=(8, -9, 19, 19))
    sums = drawing.draw(IMAGE, drawing.Drawing([black], shape=(6, 10))).sum((0, 2))  # the box begins at column 4 of 5
    return is_image(red, (3, 5)) and len(sums) == 5 and (sums[0], sums[4]) == (3 * sum(BGR), 0)


def tiles():
    page = drawing.tiles([IMAGE], side=28)
    rows, columns = np.nonzero((page == BGR).all(-1))
    return (np.ptp(rows) + 1, np.ptp(columns) + 1) == (12, 20)


def preprocess():
    preprocessed = images.preprocess(
        images.Sample('', IMAGE), [{'op': 'resize', 'scale': [10, 6], 'keep_ratio': False}]
    )
    return is_image(preprocessed.levels[0], (6, 10)) and preprocessed.valid_shape == (6, 10)


def pyramid_layout():
    sizes, base, center, extent = images.pyramid_layout((5, 3), (64, 64), (1,), 64, 32)
    return (sizes[0], base) == ((128, 64), (128, 64)) and center == (2, 2) and extent[0] > extent[1]


def arrays_of():
    sample = images.preprocess(images.Sample('', IMAGE), [])
    array = images.arrays_of([sample], {**RULE, 'divisor': 2})['image']
    return array.shape == (1, 3, 4, 6) and tuple(array[0, :, 2, 4]) == BGR and sample.input_shape == (4, 6)


def check_outputs():
    logits = {'logits': np.zeros((1, 3, 3, 5), 'f4')}
    with pytest.raises(ValueError, match=r'must be floats \[1, classes, 5, 3\]'):
        outputs.check_outputs(TASK, logits, 1, (5, 3))
    return outputs.check_outputs(TASK, logits, 1, (3, 5))['logits'].shape == (1, 3, 3, 5)


def decode():
    sample = images.preprocess(images.Sample('', IMAGE), [])
    return (
        outputs.decode(TASK, {'logits': IMAGE.transpose(2, 0, 1)[None]}, 0, sample)['seg_map'].tolist() == [[2] * 5] * 3
    )


def paste():
    whole = outputs.paste(np.ones((2, 2), 'f4'), np.float32([3, 0, 5, 3]), (3, 5), 0.5)
    return whole.shape == (3, 5) and whole[:, 3:].all() and not whole[:, :2].any()


def distinct_boxes():
    """Of two boxes of one object, the one stays that no tile cuts; none is cut by the border of a low image."""
    boxes = np.float32([[22, 0, 26, 30], [20, 0, 26, 30]])
    given = boxes, np.float32([0.8, 0.9]), np.zeros(2, int), [1, 1], [(0, 0), (0, 20)]
    return tiling.distinct_boxes(*given, (30, 50), 30).tolist() == [0]


def joined_boxes():
    moved = tiling.joined_boxes([OBJECTS, OBJECTS], [(0, 0), (0, 3)], (3, 5), 2)
    return sorted(moved['boxes'][:, 0].tolist()) == [0, 3]


def joined_maps():
    parts = [{'seg_map': np.full((3, 3), label)} for label in (0, 1)]
    return tiling.joined_maps(parts, [(0, 0), (0, 2)], (3, 5), 3)['seg_map'].tolist() == [[0, 0, 1, 1, 1]] * 3


def join_tiles():
    parts = [{'': {'seg_map': tile[..., 0]}} for tile in tiling.tiles_of(IMAGE, 3)]
    whole = tiling.join_tiles({'': {'kind': 'semantic'}}, parts, (3, 5), 3)['']['seg_map']
    return (whole == IMAGE[..., 0]).all()


def run_batch():
    sample, key = session().read('a', IMAGE)
    (result,) = session().run_batch([sample])
    return key == ((3, 5, 3),) and is_result(result)


def warp():
    matrix = warping.warp_matrix((10, 6), (2.5, 1.5), (5, 3))
    return is_image(warping.warp(IMAGE, matrix, (10, 6), BGR), (6, 10))


CALLS = {
    'benchmark.time_steps': time_steps,
    'coco.coco_records': coco_records,
    'coco.encode_rle': lambda: [coco.encode_rle(MASK, shape)['size'] for shape in (None, (6, 10))] == [[3, 5], [6, 10]],
    'drawing.reduced': lambda: is_image(drawing.reduced(IMAGE, 4)[0], (2, 4)),
    'drawing.draw': draw,
    'drawing.encoded': lambda: is_image(cv2.imdecode(np.frombuffer(drawing.encoded(IMAGE, '.png'), 'u1'), 1), (3, 5)),
    'drawing.tiles': tiles,
    'images.read_all': lambda: is_image(next(images.read_all(IMAGE))[1], (3, 5)),
    'images.try_read_all': lambda: is_image(next(images.try_read_all([('a', PNG)]))[1], (3, 5)),
    'arrays.is_array': lambda: arrays.is_array(IMAGE),
    'images.as_array': lambda: is_image(images.as_array(PILImage.fromarray(IMAGE[..., ::-1])), (3, 5)),
    'images.preprocess': preprocess,
    'images.pyramid_layout': pyramid_layout,
    'images.batch_key': lambda: images.batch_key(images.preprocess(images.Sample('', IMAGE), []), RULE) == ((3, 5, 3),),
    'images.arrays_of': arrays_of,
    'outputs.check_outputs': check_outputs,
    'outputs.decode': decode,
    'outputs.paste': paste,
    'session.Session.predict': lambda: is_result(next(session().predict(IMAGE))),
    'session.Session.try_predict': lambda: is_result(next(session().try_predict(IMAGE, tile=3))[1]),
    'session.Session.read': run_batch,
    'session.Session.benchmark': lambda: session().benchmark(IMAGE, runs=1).runs == 1,
    'tiling.tile_corners': lambda: tiling.tile_corners((3, 5), 3) == [(0, 0), (0, 2)],
    'tiling.tiles_of': lambda: [tile.shape for tile in tiling.tiles_of(IMAGE, 3)] == [(3, 3, 3)] * 2,
    'tiling.join_tiles': join_tiles,
    'tiling.joined_boxes': joined_boxes,
    'tiling.distinct_boxes': distinct_boxes,
    'tiling.joined_maps': joined_maps,
    'warping.warp_matrix': lambda: warping.warp_matrix((10, 6), (2.5, 1.5), (5, 3)).tolist() == [[2, 0, 0], [0, 2, 0]],
    'warping.warp': warp,
}  # fmt: skip


def functions_of_images():
    """Names of the runtime's public functions and methods with an image, a size or a shape among their parameters."""
    for module in pkgutil.iter_modules(icconv_mm_runtime.__path__):
        if module.name in ('__main__', 'extra', 'ray', 'web'):  # the latter take files
            continue
        members = vars(importlib.import_module(f'icconv_mm_runtime.{module.name}'))
        objects = {
            name: member
            for name, member in members.items()
            if getattr(member, '__module__', '').endswith(f'.{module.name}')
        }
        classes = {name: vars(member) for name, member in objects.items() if inspect.isclass(member)}
        objects |= {
            f'{name}.{method}': member for name, methods in classes.items() for method, member in methods.items()
        }
        for name, member in objects.items():
            is_public = not any(part.startswith('_') for part in name.split('.'))
            if is_public and inspect.isfunction(member) and MEANT & set(inspect.signature(member).parameters):
                yield f'{module.name}.{name}'


@pytest.mark.parametrize('name', CALLS)
def test_an_image_of_three_by_five(name):
    assert CALLS[name]()


def test_no_function_of_the_runtime_is_left_out():
    assert sorted(functions_of_images()) == sorted(CALLS)
