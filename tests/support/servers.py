"""Servers that answer badly."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def dripping_server() -> Iterator[str]:
    """The address of one that sends a byte now and then, so that no socket times out, and never a whole answer."""
    stopped = threading.Event()

    class Dripping(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            try:
                while not stopped.wait(0.05):
                    self.wfile.write(b'H')
            except OSError:
                pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Dripping) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f'http://127.0.0.1:{server.server_port}'
        finally:
            stopped.set()
            server.shutdown()
