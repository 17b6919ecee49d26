"""Calls that may wait for ever."""

import queue
import threading
from collections.abc import Callable


def call_with_timeout(seconds: float, function: Callable[[], bytes]) -> bytes:
    """What a function returns, which may wait for ever: urllib's timeout starts anew with every byte of an answer.

    Args:
        seconds: How long it may take; the thread that runs it is left behind then.
        function: Called in a thread of its own; what it raises is raised here.

    Raises:
        TimeoutError: It took longer.
    """
    done: queue.Queue = queue.Queue()

    def work() -> None:
        try:
            done.put((function(), None))
        except Exception as error:
            done.put((b'', error))

    threading.Thread(target=work, daemon=True).start()
    try:
        content, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f'no whole answer in {seconds:g} seconds') from None
    if error is not None:
        raise error
    return content
