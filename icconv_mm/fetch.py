"""Fetches files by address: complete, of the said length and hash, under a name of the whole address."""

import hashlib
import http.client
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path

from icconv_mm.errors import InputError, UserError
from icconv_mm_runtime.files import open_atomic

_CHUNK = 1 << 16
_HEADERS = {'User-Agent': 'Mozilla/5.0'}  # some servers refuse Python's


class FetchError(InputError):
    """A file could not be fetched.

    Attributes:
        reason: Why, without the address.
    """

    def __init__(self, address: str, reason: object) -> None:
        super().__init__(f'{address}: cannot be fetched ({reason})')
        self.reason = str(reason)


def cached_name(address: str) -> str:
    """Returns the name of an address's file in a cache; addresses that differ anywhere have different names."""
    name = address.split('?')[0].rpartition('/')[2]
    return f'{hashlib.sha256(address.encode()).hexdigest()[:16]}_{name[-100:]}'


def fetch(
    address: str,
    target: Path,
    *,
    most: int,
    limit: float = 600,
    timeout: float = 30,
    check: Callable[[Path], object] = lambda path: None,
    progress: Callable[[int, int | None], object] = lambda count, total: None,
) -> Path:
    """Downloads an address to a file, which appears complete and checked or not at all; returns its path.

    Nothing of the content is loaded or run here.

    Args:
        address: ``http://`` or ``https://``, or another that urllib opens.
        target: The file; its folder is made.
        most: Largest number of bytes.
        limit: Seconds for the whole answer.
        timeout: Seconds without a byte.
        check: Called with the path of the whole content before it gets its name; raises an error if it is another.
        progress: Called with the number of bytes of each part, and of all, if the server says it.

    Raises:
        FetchError: There is no answer, it is cut, too long or too slow.
        UserError: The error of ``check``.
    """
    try:
        end = time.monotonic() + limit
        request = urllib.request.Request(address, headers=_HEADERS)
        with _opened(request, limit, timeout) as answer:
            said = answer.headers.get('Content-Length', '')
            total = int(said) if said.isdecimal() else None
            with open_atomic(target) as file:
                count = 0
                while part := answer.read1(_CHUNK):
                    count += len(part)
                    if count > most:
                        raise FetchError(address, f'more than {most:,} bytes')
                    if time.monotonic() > end:
                        raise TimeoutError(_too_slow(limit))
                    file.write(part)
                    progress(len(part), total)
                if total is not None and count < total:  # http.client checks it only when it reads to the end at once
                    raise FetchError(address, f'{count} of {total} bytes came')
                file.flush()
                check(Path(file.name))
    except UserError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise FetchError(address, getattr(error, 'reason', error)) from None
    return target


def _opened(request: urllib.request.Request, limit: float, timeout: float) -> http.client.HTTPResponse:
    """Opens an address within the limit: urllib's own timeout starts anew with every byte of an answer's head."""
    answer: Future[http.client.HTTPResponse] = Future()

    def work() -> None:
        try:
            answer.set_result(urllib.request.urlopen(request, timeout=timeout))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    if not wait([answer], limit).done:
        raise TimeoutError(_too_slow(limit))
    return answer.result()


def _too_slow(limit: float) -> str:
    return f'no whole answer in {limit:g} seconds'
