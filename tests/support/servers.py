"""Servers that answer badly."""

import http.server
import threading
from collections.abc import Callable, Iterator
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


@contextmanager
def answering_server(answer: Callable[[str], dict]) -> Iterator[str]:
    """The address of one that answers a path with ``content``, of which it may say another ``length``."""

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            given = answer(self.path)
            self.send_response(200)
            self.send_header('Content-Length', str(given.get('length', len(given['content']))))
            self.end_headers()
            self.wfile.write(given['content'])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f'http://127.0.0.1:{server.server_port}'
        finally:
            server.shutdown()
