"""Calls with a time limit."""

import queue
import threading
from collections.abc import Callable


def call_with_timeout(seconds: float, function: Callable[[], bytes]) -> bytes:
    """Calls a function with a time limit for the whole call: urllib's own timeout starts anew with every byte.

    Args:
        seconds: The time limit; after it, the thread of the function is left running.
        function: The function, called in a thread of its own; its exceptions are raised here.

    Raises:
        TimeoutError: The function took longer.
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
