"""Random segmentations, segmentation maps and orientations: what passes, libraries can read; the rest is named."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from icconv_mm.datasets.loading import ImageFileError, LoadImageFromFile
from icconv_mm.datasets.seg_maps import learned
from icconv_mm.datasets.segmentations import segmentation_defect

mask = pytest.importorskip('pycocotools.mask')
SIDES = st.integers(1, 20)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=4),
    st.floats(),
    st.integers(-3, 2**40),
    st.lists(st.integers(), max_size=3),
)


def encoded(data, height, width) -> dict:
    """A random mask as RLE, compressed or not."""
    drawn = np.asfortranarray(data.draw(st.randoms()).choices([0, 1], k=height * width), np.uint8).reshape(
        height, width
    )
    rle = mask.encode(np.asfortranarray(drawn))
    if data.draw(st.booleans()):
        return {'size': [height, width], 'counts': rle['counts'].decode()}
    flat = drawn.T.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    return {'size': [height, width], 'counts': np.diff([0, *changes, flat.size]).tolist()}


def damaged(data, runs: dict) -> dict:
    """The same with an entry that is another, more, fewer or gone."""
    counts = runs['counts']
    at = data.draw(st.integers(0, len(counts)))
    some = counts[at : at + data.draw(st.integers(0, 2))]
    new = data.draw(
        st.sampled_from([counts[:at], counts + some, counts[:at] + some + counts[at:], counts[:at] + counts[at + 1 :]])
    )
    if data.draw(st.booleans()):
        new = data.draw(st.text('0PoOl4\n ~', max_size=20) if isinstance(new, str) else st.one_of(ODD, st.lists(ODD)))
    given = {'size': data.draw(st.sampled_from([runs['size'], runs['size'][::-1], None, [1]])), 'counts': new}
    return {key: value for key, value in given.items() if value is not None or data.draw(st.booleans())}


def read_by_pycocotools(segmentation, height, width) -> int:
    """Pixels of a mask, as annotations are decoded in training and compared in validation."""
    if isinstance(segmentation, list):
        runs = mask.merge(mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        runs = mask.frPyObjects(segmentation, height, width)
    else:
        runs = segmentation
    whole = mask.encode(np.ones((height, width), np.uint8, order='F'))
    assert 0 <= mask.iou([runs], [whole], [0])[0, 0] <= 1
    decoded = mask.decode(runs)
    assert decoded.shape == (height, width) and decoded.sum() == mask.area(runs)
    return int(decoded.sum())


@given(data=st.data(), height=SIDES, width=SIDES)
def test_segmentations(case, data, height, width):
    kind = data.draw(st.sampled_from(['runs', 'damaged', 'polygons', 'odd']))
    if kind == 'polygons':
        numbers = st.one_of(st.integers(-5, 25), st.floats(-5, 25), *[ODD] * data.draw(st.integers(0, 1)))
        segmentation = data.draw(st.lists(st.lists(numbers, max_size=9), max_size=3))
    elif kind == 'odd':
        segmentation = data.draw(st.one_of(ODD, st.dictionaries(st.sampled_from(['size', 'counts']), ODD)))
    else:
        segmentation = encoded(data, height, width)
        if kind == 'damaged':
            segmentation = damaged(data, segmentation)
    case.holds(repr((segmentation, height, width)).encode(errors='replace'))
    defect = segmentation_defect(segmentation, height, width)
    assert defect is None or kind != 'runs'
    if defect is None:
        read_by_pycocotools(segmentation, height, width)


@given(data=st.data(), dtype=st.sampled_from([np.uint8, np.uint16]), channels=st.sampled_from([1, 1, 3]))
def test_seg_maps(case, data, dtype, channels):
    """A map that is read has the labels of the file, those that are left out and no others."""
    pytest.importorskip('mmseg')
    from icconv_mm.tasks.semantic import LoadSegMap

    classes, reduced = data.draw(st.integers(1, 4)), data.draw(st.booleans())
    labels = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 255, 256, 257, 511, 65535]), min_size=6, max_size=6))
    drawn = np.array(labels).astype(dtype).reshape(2, 3)
    path = case.holds(cv2.imencode('.png', np.dstack([drawn] * channels).squeeze())[1].tobytes())
    size = data.draw(st.sampled_from([(2, 3), (2, 3), (3, 2)]))
    loaded = dict(seg_map_path=str(path), ori_shape=size, reduce_zero_label=reduced, seg_fields=[])
    seen = learned(set(drawn.ravel().tolist()), reduced, None)
    is_good = channels == 1 and size == (2, 3) and seen <= {*range(classes), 255}
    try:
        result = LoadSegMap(num_classes=classes).transform(loaded)['gt_seg_map']
    except ImageFileError as error:
        assert str(error).startswith(str(path)) and not is_good
        return
    assert is_good
    expected = np.where(drawn == 0, 255, drawn - (drawn < 255)) if reduced else drawn
    np.testing.assert_array_equal(result, expected)


@given(orientation=st.integers(0, 9), height=SIDES, width=SIDES, swapped=st.booleans())
def test_orientations(case, orientation, height, width, swapped):
    """An image is read where its annotations are of its size as it is seen."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = case.holds(b'').with_suffix('.jpg')
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path, exif=exif)
    seen = (width, height) if 5 <= orientation <= 8 else (height, width)
    said = seen[::-1] if swapped else seen
    try:
        results = LoadImageFromFile().transform({'img_path': str(path), 'height': said[0], 'width': said[1]})
    except ImageFileError as error:
        assert str(error).startswith(f'{path}: the image has {seen[1]} x {seen[0]} pixels') and seen != said
        assert ('EXIF' in str(error)) == (5 <= orientation <= 8)
    else:
        assert results['img_shape'] == said == seen
