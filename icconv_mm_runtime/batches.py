"""Groups images into batches, in order, and tells the images that a batch fails of from the others."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_AHEAD = 8  # batches of images that may wait for others of their key


@dataclass
class _Waiting:
    """An image on its way: ``given`` until it has run, then ``output``, its result or error."""

    image: Any
    given: Any
    key: object
    output: Any = None


def in_batches(
    read: Iterable[tuple[Any, Any, object]],
    run: Callable[[Sequence[Any]], Sequence[Any]],
    batch_size: int,
    errors: type[Exception],
    retries: bool = True,
) -> Iterator[tuple[Any, Any]]:
    """Yields each image and its result or error, in order.

    Args:
        read: Each image, what was read of it or an error, and the key that the images of a batch share although others
            are between them.
        run: Returns the results of a batch.
        batch_size: Images in a batch.
        errors: Exceptions of ``run`` that its images cause.
        retries: Whether the images of a batch that fails run alone, to find the failing one; else all of them fail.
    """
    waiting: deque[_Waiting] = deque()
    groups: dict[object, list[_Waiting]] = {}

    def finish(group: Sequence[_Waiting]) -> None:
        try:
            outputs: Sequence[Any] = run([waiting.given for waiting in group])
        except errors as error:
            outputs = [error] * len(group)
            if retries and len(group) > 1:
                for waiting in group:
                    finish([waiting])
                return
        for waiting, result in zip(group, outputs, strict=True):
            waiting.given, waiting.output = None, result

    for image, given, key in read:
        waiting.append(_Waiting(image, given, key))
        if isinstance(given, Exception):
            waiting[-1].given, waiting[-1].output = None, given
        else:
            groups.setdefault(key, []).append(waiting[-1])
            if len(groups[key]) == batch_size:
                finish(groups.pop(key))
        if waiting[0].given is not None and len(waiting) >= _AHEAD * batch_size:
            finish(groups.pop(waiting[0].key))
        while waiting and waiting[0].given is None:
            yield waiting[0].image, waiting.popleft().output
    for group in groups.values():
        finish(group)
    yield from ((item.image, item.output) for item in waiting)
