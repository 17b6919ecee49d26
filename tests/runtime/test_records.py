"""Results of images stay on the disk until all are joined, by exactly one of several processes."""

import multiprocessing

import pytest

from icconv_mm_runtime import RuntimeInputError
from icconv_mm_runtime.records import ResultLog

COUNT = 4


def ended(out, number, paths, **options):
    """A process that has predicted its part."""
    log = ResultLog(out, ['settings'], paths, (number, COUNT), **options)
    for place, path in enumerate(log.share()):
        log.add(place, path, {'image': {}, 'records': {'': [{'name': path.name}]}})
    return log


def joined(log):
    """What the process joins: None if it is not the last one, else the names of all images."""
    names = [row['records'][''][0]['name'] for row in log.rows()] if (is_last := log.finish()) else None
    log.close(is_last)
    return names


@pytest.fixture
def paths(tmp_path):
    paths = [tmp_path / f'{number}.png' for number in range(10)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes(number))
    return paths


def test_two_processes_that_see_all_parts_at_once(tmp_path, paths):
    """The second looks while the first joins: one has all, and no part is lost."""
    logs = [ended(tmp_path / 'out', number, paths) for number in range(1, COUNT + 1)]
    assert [joined(log) for log in logs[:2]] == [None, None]
    first, second = logs[2:]
    second.finish()  # its part is there, and it has looked before the first was
    assert first.finish()
    assert not second.finish.__self__.folder.exists() and ResultLog(tmp_path / 'other', []).done == set()
    assert [row['path'] for row in first.rows()] == list(map(str, paths))
    first.close(True)
    assert not (tmp_path / 'out/.results').exists()


def process(out, number, paths, barrier, queue):
    log = ended(out, number, paths)
    barrier.wait()
    try:
        queue.put(joined(log))
    except Exception as error:
        queue.put(repr(error))


def test_processes_that_end_at_the_same_moment(tmp_path):
    context, many = multiprocessing.get_context('fork'), [tmp_path / f'{number}' for number in range(4000)]
    for turn in range(12):
        barrier, queue = context.Barrier(COUNT), context.Queue()
        given = [(tmp_path / f'out{turn}', number, many, barrier, queue) for number in range(1, COUNT + 1)]
        running = [context.Process(target=process, args=arguments) for arguments in given]
        for worker in running:
            worker.start()
        answers = [queue.get(timeout=100) for _ in running]
        for worker in running:
            worker.join()
        assert [len(names) for names in answers if names is not None] == [len(many)], answers


def test_a_part_whose_images_changed_is_none(tmp_path, paths):
    for number in (1, 2, 3):
        assert joined(ended(tmp_path, number, paths)) is None
    paths[0].write_bytes(b'other')
    assert joined(ended(tmp_path, 4, paths)) is None
    assert len(joined(ended(tmp_path, 1, paths))) == len(paths)


def test_the_order_is_that_of_the_images(tmp_path, paths):
    """Whatever a resumed process adds last."""
    log = ResultLog(tmp_path, [], paths)
    for place in (3, 1, 2):
        log.add(place, paths[place], {'records': place})
    log.close(is_written=False)
    again = ResultLog(tmp_path, [], paths, resume=True)
    assert again.done == {str(paths[place]) for place in (1, 2, 3)}
    again.add(0, paths[0], {'records': 0})
    assert [row['records'] for row in again.rows()] == [0, 1, 2, 3]
    again.close(is_written=False)
    assert ResultLog(tmp_path, [], paths).done == set()


def test_a_resumed_process_predicts_an_image_of_other_content_and_equal_size_again(tmp_path, paths):
    log = ResultLog(tmp_path, [], paths)
    for place in (8, 9):
        log.add(place, paths[place], {})
    log.close(is_written=False)
    paths[9].write_bytes(b'x' * 9)
    assert ResultLog(tmp_path, [], paths, resume=True).done == {str(paths[8])}


def test_results_of_other_settings_are_seen(tmp_path, paths):
    ResultLog(tmp_path, [1], paths).close(is_written=False)
    log = ResultLog(tmp_path, [2], paths, resume=True)
    assert log.has_others and not log.done
    log.discard()
    assert not ResultLog(tmp_path, [1], paths).has_others


def test_two_processes_of_one_number(tmp_path, paths):
    log = ResultLog(tmp_path, [], paths)
    with pytest.raises(RuntimeInputError, match='another process predicts the same images into it'):
        ResultLog(tmp_path, [], paths)
    log.discard()
    ResultLog(tmp_path, [], paths).discard()
    assert not (tmp_path / '.results').exists()


@pytest.mark.parametrize('shard', [(0, 2), (3, 2)])
def test_numbers_that_are_none(tmp_path, shard):
    with pytest.raises(RuntimeInputError, match='shard: expected I/N, I from 1 to N'):
        ResultLog(tmp_path, [], [], shard)
