"""Images in batches: their order, who shares a batch, and whom a failing image takes with it."""

import pytest

from icconv_mm_runtime.batches import in_batches


def run(images, batch_size, retries=True):
    """Returns the batches that ran, and the results: an image is its key and a number; 9 fails its batch."""
    batches = []

    def double(batch):
        batches.append(list(batch))
        if 9 in batch:
            raise ValueError('nine')
        return [2 * number for number in batch]

    read = ((image, image[1], image[0]) for image in images)
    return batches, list(in_batches(read, double, batch_size, ValueError, retries))


def test_images_of_one_key_share_a_batch_and_the_order_stays():
    images = [('a', 1), ('b', 2), ('a', 3), ('b', 4), ('a', 5)]
    batches, results = run(images, 2)
    assert batches == [[1, 3], [2, 4], [5]]
    assert results == [(image, 2 * image[1]) for image in images]


def test_an_image_alone_of_its_key_does_not_wait_for_all_others():
    batches, results = run([('a', 1), *[('b', number) for number in range(10, 60)]], 2)
    assert [1] in batches[:9] and results[0] == (('a', 1), 2) and len(results) == 51


def test_an_image_that_fails_costs_no_other():
    images = [('a', 1), ('a', 9), ('a', 3), ('a', 4)]
    batches, results = run(images, 3)
    assert batches == [[1, 9, 3], [1], [9], [3], [4]]
    assert [str(result) for _, result in results] == ['2', 'nine', '6', '8']
    batches, results = run(images, 3, retries=False)
    assert batches == [[1, 9, 3], [4]] and [str(result) for _, result in results] == ['nine', 'nine', 'nine', '8']


def test_an_image_that_cannot_be_read_keeps_its_place():
    error = OSError('gone')
    read = [('x', 1, None), ('y', error, None), ('z', 2, None)]
    assert list(in_batches(read, list, 2, ValueError)) == [('x', 1), ('y', error), ('z', 2)]


def test_other_errors_end_the_work():
    with pytest.raises(KeyError, match='b'):
        list(in_batches([('x', {'a': 1}, None)], lambda batch: [batch[0]['b']], 1, ValueError))
