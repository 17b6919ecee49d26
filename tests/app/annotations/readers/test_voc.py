"""Pascal VOC: what its boxes count from, whose image a file describes, and what else is written in its form."""

import numpy as np
import pytest
from drawn_sets import draw, only, said, write
from PIL import Image

from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.find import read_datasets
from icconv_mm.app.annotations.segmentations import mask_of
from icconv_mm.errors import ArgumentError, InputError

pytest.importorskip('pycocotools')


def _xml(root, name, *boxes, filename=None, size='', more=''):
    """An XML file and, unless it names another file, its image of 16 x 12 pixels."""
    if filename is None:
        draw(root, f'JPEGImages/{name}.jpg')

    def corners(box):
        return ''.join(f'<{side}>{value}</{side}>' for side, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box))

    objects = ''.join(f'<object><name>x</name>{more}<bndbox>{corners(box)}</bndbox></object>' for box in boxes)
    text = f'<annotation><filename>{filename or f"{name}.jpg"}</filename>{size}{objects}</annotation>'
    write(root, {f'Annotations/{name}.xml': text})


def _read(root, **options):
    dataset = only(root, **options)
    return dataset, [annotation.box for _, annotation in dataset.annotations()]


_ONE, _ONE_FROM_0, _ONE_FROM_1 = (3, 4, 9, 10), [3, 4, 6, 6], [2, 3, 7, 7]


@pytest.mark.parametrize(
    ('others', 'expected', 'note'),
    [
        ([(0, 4, 9, 10)], _ONE_FROM_0, 'boxes count pixels from 0: 1 of 2 start at 0 or have fractions (--voc-from 1'),
        ([(2, 0, 9, 10)], _ONE_FROM_0, 'from 0: 1 of 2 start at 0'),
        ([(2.5, 4, 9, 10)], _ONE_FROM_0, 'from 0: 1 of 2'),
        ([(2, 4, 9, 10.25)], _ONE_FROM_0, 'from 0: 1 of 2'),
        (
            [('2.0', '4.0', '16.0', '12.0')],
            _ONE_FROM_1,
            'from 1: as in Pascal VOC; no box says otherwise (--voc-from 0',
        ),
        ([(2, 4, 17, 12)], _ONE_FROM_1, 'from 1: 1 of 2 end at the width or height + 1'),
        ([(2, 4, 16, 13)], _ONE_FROM_1, 'from 1: 1 of 2 end'),
        ([(0, 4, 9, 10), (2, 4, 17, 12)], _ONE_FROM_1, 'from 1: 1 of 3 start at 0 or have fractions, 1 of 3 end at'),
        ([(0, 4, 9, 10)] * 2 + [(2, 4, 17, 12)], _ONE_FROM_0, 'from 0: 2 of 4 start at 0 or have fractions, 1 of 4'),
    ],
)
@pytest.mark.parametrize('size', ['', '<size><width>16</width><height>12</height></size>'])
def test_boxes_count_pixels_from_what_the_set_says(tmp_path, others, expected, note, size):
    """Any side at 0 and any fraction counts from 0, an end at the width + 1 from 1; more boxes decide, else from 1."""
    _xml(tmp_path, '0', _ONE, size=size)
    _xml(tmp_path, '1', *others, size=size)
    dataset, boxes = _read(tmp_path)
    assert boxes[0] == expected and not dataset.warnings
    converted = convert_dataset(dataset, 'detection', tmp_path / 'out')
    assert len([line for line in converted.notes if note in line]) == 1


@pytest.mark.parametrize(('given', 'expected'), [(0, _ONE_FROM_0), (1, _ONE_FROM_1)])
def test_the_user_says_what_boxes_count_from(tmp_path, given, expected):
    _xml(tmp_path, '0', _ONE)
    _xml(tmp_path, '1', (0, 4, 9, 10) if given else (2, 4, 17, 12))
    dataset, boxes = _read(tmp_path, voc_from=given)
    assert boxes[0] == expected and not dataset.notes
    with pytest.raises(ArgumentError, match='voc_from: expected 0 or 1, got 2'):
        read_datasets(tmp_path, voc_from=2)


def test_boxes_from_zero_are_those_of_rotated_images(tmp_path):
    """A box of the stored pixels is moved to the image as it is loaded after its corners were counted."""
    exif = Image.Exif()
    exif[0x0112] = 6
    _xml(tmp_path, '0', (0, 1, 4, 3), size='<size><width>16</width><height>12</height></size>')
    Image.new('RGB', (16, 12)).save(tmp_path / 'JPEGImages' / '0.jpg', exif=exif)
    _, boxes = _read(tmp_path)
    assert boxes == [[12 - 3, 0, 2, 4]]


def test_real_boxes_from_one(real_samples):
    """Many of them end at the width, which says nothing."""
    from xml.etree import ElementTree

    dataset, _ = _read(real_samples / 'bccd_voc')
    expected = {}
    for path in (real_samples / 'bccd_voc' / 'Annotations').glob('*.xml'):
        boxes = [
            [int(element.findtext(side)) for side in ('xmin', 'ymin', 'xmax', 'ymax')]
            for element in ElementTree.parse(path).iter('bndbox')
        ]
        expected[path.stem] = [[a - 1, b - 1, c - a + 1, d - b + 1] for a, b, c, d in boxes if c > a and d > b]
    assert {
        image.path.stem: [annotation.box for annotation in image.annotations] for image in dataset.images.values()
    } == expected
    assert 'boxes count pixels from 1' in dataset.notes[0]


# --- whose image ---


def test_an_image_of_the_name_in_the_file_comes_first(tmp_path):
    """Another suffix is read in its place only where the named image is not there, with one note."""
    for number in range(4):
        _xml(tmp_path, str(number), _ONE, filename=f'{number}.png')
        draw(tmp_path, f'JPEGImages/{number}.jpg')
    draw(tmp_path, 'JPEGImages/0.png', 'more/1.png')
    dataset, _ = _read(tmp_path)
    assert [image.path.name for image in dataset.images.values()] == ['0.png', '1.png', '2.jpg', '3.jpg']
    (note,) = [note for note in dataset.notes if 'in its place' in note]
    where = tmp_path / 'Annotations' / '2.xml'
    assert note == f'{where}: 2.png is not there, 2.jpg is read in its place (2 such files)'
    assert not dataset.warnings


@pytest.mark.parametrize('filename', ['0', '0.JPG', '0.JPEG.tmp', 'stale.png'])
def test_names_in_files_that_are_no_other_image(tmp_path, filename):
    draw(tmp_path, 'JPEGImages/0.jpg')
    _xml(tmp_path, '0', _ONE, filename=filename)
    dataset, _ = _read(tmp_path)
    assert [image.path.name for image in dataset.images.values()] == ['0.jpg']
    assert len(dataset.notes) == 1 and not dataset.warnings


def test_images_without_a_file_are_named(tmp_path):
    draw(tmp_path, 'JPEGImages/8.jpg', 'JPEGImages/9.jpg', 'elsewhere/7.jpg')
    _xml(tmp_path, '0', _ONE)
    dataset, _ = _read(tmp_path)
    assert said(dataset) == f'{tmp_path / "JPEGImages" / "8.jpg"}: has no XML file: not read (2 such images)'
    _xml(tmp_path, '1', _ONE, filename='1.jpg')
    (tmp_path / 'JPEGImages' / '1.jpg').unlink(missing_ok=True)
    write(tmp_path, {'ImageSets/Main/train.txt': '0\n1\n8\nnone\n'})
    dataset, _ = _read(tmp_path)
    assert (
        said(dataset) == f'{tmp_path / "JPEGImages" / "8.jpg"}: is listed in ImageSets, and has no XML file: left out'
    )
    assert dataset.missing == [f'{tmp_path / "Annotations" / "1.xml"}: 1.jpg', 'ImageSets: none']


# --- objects ---


@pytest.mark.parametrize(('text', 'is_crowd'), [('1', True), ('True', True), (' 1 ', True), ('0', False), ('', False)])
def test_difficult_objects_are_ignored_and_others_learned(tmp_path, text, is_crowd):
    more = '<truncated>1</truncated><occluded>1</occluded><pose>Left</pose>'
    _xml(tmp_path, '0', _ONE, more=f'{more}<difficult>{text}</difficult>')
    dataset, _ = _read(tmp_path)
    assert [annotation.crowd for _, annotation in dataset.annotations()] == [is_crowd]


_POLYGON = '<polygon>{}</polygon>'.format(
    ''.join(f'<pt><x>{x}</x><y>{y}</y></pt>' for x, y in ((2, 1), (8, 1), (8, 5)))
)


def test_polygons_of_mit_labelme(tmp_path):
    """They count from 0; deleted objects are none."""
    draw(tmp_path, 'Images/street/0.jpg')
    size = '<imagesize><nrows>12</nrows><ncols>16</ncols></imagesize>'
    objects = [
        f'<object><name>\ncar\n</name><deleted>{gone}</deleted><occluded>no</occluded>{polygon}</object>'
        for gone, polygon in ((0, _POLYGON), (1, _POLYGON), (0, '<segm><mask>0.png</mask></segm>'))
    ]
    text = f'<annotation><filename>\n0.jpg\n</filename>{"".join(objects)}{size}</annotation>'
    write(tmp_path, {'Annotations/street/0.xml': text})
    (dataset,) = read_datasets(tmp_path)
    ((image, annotation),) = dataset.annotations()
    assert annotation.name == 'car' and annotation.segmentation == [[2, 1, 8, 1, 8, 5]] and annotation.box is None
    assert dataset.format == 'LabelMe of MIT' and dataset.tasks() == ['detection', 'instance'] and not dataset.notes
    assert said(dataset).endswith('object 3: car: has no bndbox, and no polygon: left out')
    converted = convert_dataset(dataset, 'instance', tmp_path / 'out')
    assert converted.counts == {'car': 1} and mask_of(annotation.segmentation, image.size).sum() == annotation.area


def test_polygons_beside_boxes(tmp_path):
    """The box is the annotation, and polygons are no evidence of what boxes count from."""
    _xml(tmp_path, '0', _ONE, more=_POLYGON)
    write(tmp_path, {'Annotations/1.xml': f'<annotation><object><name>y</name>{_POLYGON}</object></annotation>'})
    draw(tmp_path, 'JPEGImages/1.jpg')
    dataset, boxes = _read(tmp_path)
    assert (
        boxes == [_ONE_FROM_1, None] and dataset.format == 'Pascal VOC' and 'no box says otherwise' in dataset.notes[0]
    )


def test_rotated_boxes_of_rolabelimg(tmp_path):
    """In radians, clockwise: polygons and the boxes around them, which say nothing of what boxes count from."""
    sides = dict(cx=8, cy=6, w=8, h=4, angle=np.pi / 2)
    box = ''.join(f'<{name}>{value}</{name}>' for name, value in sides.items())
    objects = f'<object><type>robndbox</type><name>ship</name><robndbox>{box}</robndbox></object>'
    write(tmp_path, {'0.xml': f'<annotation>{objects}</annotation>'})
    draw(tmp_path, '0.jpg')
    (dataset,) = read_datasets(tmp_path)
    ((image, annotation),) = dataset.annotations()
    assert annotation.box == pytest.approx([6, 2, 4, 8]) and mask_of(annotation.segmentation, image.size).sum() == 32
    assert dataset.tasks() == ['detection', 'instance'] and dataset.format == 'Pascal VOC'
    assert dataset.notes == ['1 rotated boxes are polygons for masks, and the boxes around these for detection']


def test_annotations_of_nothing(tmp_path):
    write(tmp_path, {'Annotations/0.xml': '<annotation><object><name>x</name></object></annotation>'})
    draw(tmp_path, 'JPEGImages/0.jpg')
    with pytest.raises(InputError, match=r'of its annotations can be used, the first: .*object 1: x: has no bndbox'):
        read_datasets(tmp_path)
