"""Drawn images: nothing is cut, large ones are reduced, skeletons have only what is shown."""

import numpy as np
import pytest

from icconv_mm_runtime.drawing import LONGEST, Drawing, DrawnObject, color_of, draw, drawing_of, joined, palette, tiles


def test_large_images_are_reduced_and_marks_with_them():
    image = np.full((3000, 9000, 3), 128, dtype=np.uint8)
    drawn = draw(image, Drawing([DrawnObject((255, 0, 0), '', [4500, 1500, 6000, 2400])]))
    assert drawn.shape == (round(3000 * LONGEST / 9000), LONGEST, 3)
    red = np.argwhere((drawn[..., 2] > 200) & (drawn[..., 1] < 90))
    scale = LONGEST / 9000
    expected = np.array([[1500, 4500], [2400, 6000]]) * scale
    assert np.abs([red.min(0), red.max(0)] - expected).max() < 8
    again = draw(image[::3, ::3], Drawing([DrawnObject((255, 0, 0), '', [4500, 1500, 6000, 2400])], shape=(3000, 9000)))
    assert again.shape == (1000, 3000, 3) and np.abs(np.argwhere(again[..., 2] > 200).min(0) - [500, 1500]).max() < 8


@pytest.mark.parametrize('box', [[-5, -5, 20, 20], [190, 2, 199, 30], [180, 90, 199, 99]])
@pytest.mark.parametrize('size', [(100, 200), (1000, 2000)])
def test_words_are_whole_wherever_the_box_is(box, size):
    """The ground of the words has the same pixels in a corner as in the middle."""
    scale = size[0] // 100

    def ground(place):
        content = Drawing([DrawnObject((0, 0, 255), 'a long name 0.99', [value * scale for value in place])])
        drawn = draw(np.full((*size, 3), 200, dtype=np.uint8), content)
        plain = draw(
            np.full((*size, 3), 200, dtype=np.uint8), Drawing([DrawnObject((0, 0, 255), '', content.objects[0].box)])
        )
        return (drawn != plain).any(-1).sum()

    assert ground(box) >= 0.85 * ground([60, 50, 75, 65])


def test_skeletons_have_only_keypoints_that_are_shown():
    points = np.array([[20, 20], [80, 20], [50, 80]], dtype=float)
    mark = DrawnObject((0, 255, 0), keypoints=points, shown=np.array([True, True, False]), skeleton=[(0, 1), (1, 2)])
    drawn = draw(np.zeros((100, 100, 3), dtype=np.uint8), Drawing([mark]))
    assert drawn[20, 50].any() and not drawn[40:, :].any()


def test_seg_maps_leave_ignored_alone_and_colours_differ():
    labels = np.full((60, 60), 255, dtype=np.uint8)
    labels[:, :20], labels[:, 20:40] = 0, 1
    image = np.full((60, 60, 3), 100, dtype=np.uint8)
    drawn = draw(image, Drawing(seg_map=labels, names=('', '')))
    assert (drawn[:, 42:] == 100).all() and (drawn[30, 5] != drawn[30, 25]).any() and (drawn[30, 5] != 100).any()
    colors = np.array(palette(20), dtype=int)
    apart = np.abs(colors[:, None] - colors[None]).sum(-1) + 999 * np.eye(20, dtype=int)
    assert apart.min() > 40 and color_of(3) == palette(4)[3]


def test_masks_on_seg_maps_are_polygons():
    image, mask = np.full((60, 60, 3), 100, dtype=np.uint8), np.zeros((60, 60), dtype=bool)
    mask[10:50, 10:50] = True
    content = Drawing([DrawnObject((255, 0, 0), mask=mask)])
    assert draw(image, content)[30, 30, 2] > 150
    content.seg_map, content.colors = np.zeros((60, 60), np.uint8), [(0, 0, 255)]
    drawn = draw(image, content)
    assert (drawn[30, 30] == drawn[2, 2]).all() and (drawn[10, 30] > 200).all()


def test_tiles():
    assert tiles([np.zeros((30, 60, 3), np.uint8)] * 5, side=50, columns=4).shape == (100, 200, 3)


def test_what_several_tasks_found_is_one_image():
    """The best on top, nothing below the score; two kinds of skeletons beside each other."""
    masks = np.zeros((2, 40, 60), dtype=bool)
    results = {
        'objects': {'boxes': np.array([[1, 2, 9, 9], [3, 3, 8, 8]]), 'scores': np.array([0.9, 0.5]), 'masks': masks},
        'regions': {'seg_map': np.zeros((40, 60), np.uint8)},
        'people': {'keypoints': np.full((2, 3, 2), 20.0), 'scores': np.array([0.1, 0.8])},
        'hands': {'keypoints': np.full((1, 2, 2), 30.0), 'scores': np.array([0.7])},
        'weather': {'scores': np.array([0.25, 0.75])},
    }
    results['objects']['labels'] = np.array([1, 2])
    for name, count in (('people', 2), ('hands', 1)):
        results[name]['keypoint_scores'] = np.tile([0.9, 0.9, 0.01], (count, 1))[
            :, : results[name]['keypoints'].shape[1]
        ]
    tasks = {
        'objects': {'kind': 'instance', 'classes': ['cat', 'dog'], 'palette': [[1, 2, 3], [4, 5, 6]]},
        'regions': {'kind': 'semantic', 'classes': ['sky'], 'palette': None},
        'people': {'kind': 'pose', 'classes': ['person'], 'skeleton': [[0, 2], [0, 1]]},
        'hands': {'kind': 'pose', 'classes': ['hand'], 'skeleton': [[0, 1]]},
        'weather': {'kind': 'classification', 'classes': ['rain', 'sun']},
    }
    whole = joined(drawing_of(tasks[name], results[name], 0.3) for name in tasks)
    assert [mark.text for mark in whole.objects] == ['2 0.50', 'dog 0.90', '', '']
    assert [mark.color for mark in whole.objects[:2]] == [color_of(2), [4, 5, 6]]
    assert [mark.shown.tolist() for mark in whole.objects[2:]] == [[True, True, False], [True, True]]
    assert whole.names == ['sky'] and whole.title == 'sun 0.75'
    assert draw(np.zeros((40, 60, 3), np.uint8), whole).any()


def test_hatched_objects_and_names_of_keypoints():
    """Ignored objects are hatched within their mask or box; the names of keypoints stand beside the shown ones."""
    image, grey = np.zeros((200, 200, 3), np.uint8), (128, 128, 128)
    mask = np.zeros((200, 200), bool)
    mask[20:80, 20:80] = True
    drawn = draw(image, Drawing([DrawnObject(grey, box=(100, 100, 180, 180), is_hatched=True)]))
    lines = (drawn[110:170, 110:170] == grey).all(-1)
    assert 0.1 < lines.mean() < 0.6 and not drawn[:90].any()
    drawn = draw(image, Drawing([DrawnObject((255, 0, 0), mask=mask, is_hatched=True)]))
    assert 0.1 < (drawn[30:70, 30:70] == (0, 0, 255)).all(-1).mean() < 0.6 and not drawn[100:].any()
    points, shown = np.array([[50.0, 50], [150, 150]]), np.array([True, False])
    plain, named = (
        draw(image, Drawing([DrawnObject(grey, keypoints=points, shown=shown, keypoint_names=names)]))
        for names in ((), ('nose', 'tail'))
    )
    where = np.argwhere((plain != named).any(-1))
    assert len(where) and where.max() < 120


def test_ignored_pixels_of_segmentation_maps_have_their_colour():
    image, labels = np.zeros((60, 60, 3), np.uint8), np.full((60, 60), 255, np.uint8)
    assert not draw(image, Drawing(seg_map=labels, names=('a',))).any()
    assert draw(image, Drawing(seg_map=labels, names=('a',), ignored_color=(100, 100, 100))).min() == 80
