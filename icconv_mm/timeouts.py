"""Calls with a time limit."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait


def call_with_timeout(seconds: float, function: Callable[[], bytes]) -> bytes:
    """Calls a function with a time limit for the whole call: urllib's own timeout starts anew with every byte.

    Args:
        seconds: The time limit; after it, the thread of the function is left running.
        function: The function, called in a thread of its own; its exceptions are raised here.

    Raises:
        TimeoutError: The function took longer.
    """
    answer: Future[bytes] = Future()

    def work() -> None:
        try:
            answer.set_result(function())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    if not wait([answer], seconds).done:
        raise TimeoutError(f'no whole answer in {seconds:g} seconds')
    return answer.result()
