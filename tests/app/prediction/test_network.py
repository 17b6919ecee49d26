"""What stands above a checkpoint and an exported file: threads that read ahead, batches, checked arguments."""

import itertools
import threading

import pytest

from icconv_mm.app.prediction.network import ahead
from icconv_mm.errors import ArgumentError


def test_threads_work_ahead_and_keep_the_order():
    """The second image is begun before the first one is asked for, and no more than a few are."""
    begun, both = [], threading.Barrier(2, timeout=20)

    def load(number):
        begun.append(number)
        if number < 2:
            both.wait()  # for the other: one thread alone would never get on
        if number == 30:
            raise KeyError('30')
        return number

    results = ahead(load, itertools.count(), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2] and len(begun) < 10
    with pytest.raises(KeyError, match='30'):
        list(results)
    begun.clear()
    one = ahead(begun.append, range(9), 0)
    next(one)
    assert begun == [0]


def test_the_number_of_threads_is_named_as_the_argument_that_it_is():
    with pytest.raises(ArgumentError, match=r'^workers: expected 0 or more, got -1$'):
        next(ahead(print, [1], -1))
