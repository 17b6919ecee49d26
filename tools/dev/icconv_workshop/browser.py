"""Drives a headless Chromium by the DevTools protocol over pipes; needs nothing but the browser."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')


def executable() -> str | None:
    """Returns the path of an installed Chromium; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab of a browser.

    Args:
        process: The browser.
        read: File of the browser's messages, each ended by a zero byte.
        write: File of the messages to it.
    """

    def __init__(self, process: subprocess.Popen, read: Any, write: Any) -> None:
        self.process, self._read, self._write = process, read, write
        self._count, self._session, self.events = 0, None, []
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log'):
            self.call(f'{domain}.enable')

    def call(self, method: str, **params: Any) -> dict:
        """Calls a method of the protocol; events that come meanwhile are kept in ``events``."""
        self._count += 1
        message = {'id': self._count, 'method': method, 'params': params}
        if self._session:
            message['sessionId'] = self._session
        self._write.write(json.dumps(message).encode() + b'\0')
        self._write.flush()
        while True:
            answer = self._next()
            if answer.get('id') == self._count:
                if 'error' in answer:
                    raise RuntimeError(f'{method}: {answer["error"]["message"]}')
                return answer['result']
            self.events.append(answer)

    def _next(self) -> dict:
        content = bytearray()
        while (byte := self._read.read(1)) != b'\0':
            if not byte:
                raise RuntimeError('the browser has ended')
            content += byte
        return json.loads(content)

    def open(self, url: str) -> None:
        """Opens an address."""
        self.call('Page.navigate', url=url)
        self.run("new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', done))")

    def run(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression, or of what its promise gives."""
        answer = self.call('Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True)
        if 'exceptionDetails' in answer:
            details = answer['exceptionDetails']
            raise RuntimeError(details.get('exception', {}).get('description') or details['text'])
        return answer['result'].get('value')

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Waits until a JavaScript expression is true."""
        self.run(
            f'new Promise((done, failed) => {{ const end = Date.now() + {1000 * seconds}; const look = () => {{ '
            f'if ({condition}) done(); else if (Date.now() > end) failed(new Error("not true in time")); '
            'else setTimeout(look, 20); }; look(); })'
        )

    def choose(self, selector: str, file: str | Path) -> None:
        """Gives a file to an ``<input type="file">``."""
        root = self.call('DOM.getDocument')['root']['nodeId']
        node = self.call('DOM.querySelector', nodeId=root, selector=selector)['nodeId']
        self.call('DOM.setFileInputFiles', nodeId=node, files=[str(file)])


@contextmanager
def browser(*options: str, command: Sequence[str] = ()) -> Iterator[Page]:
    """Yields a page of a new headless browser, which ends with the block; ``command`` is put before its own."""
    to_read, to_write = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        switches = ['--headless=new', '--no-sandbox', '--remote-debugging-pipe', f'--user-data-dir={profile}',
                    '--no-first-run', '--disable-dev-shm-usage', '--disable-background-networking']  # fmt: skip
        # the browser reads messages from descriptor 3 and writes to 4
        script = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        wrapped = ['bash', '-c', script, 'bash', str(to_read[0]), str(to_write[1])]
        arguments = [*wrapped, *command, executable() or NAMES[0], *switches, *options, 'about:blank']
        with open(os.devnull, 'wb') as nothing:
            process = subprocess.Popen(
                arguments, pass_fds=(to_read[0], to_write[1]), stdout=nothing, stderr=nothing, start_new_session=True
            )
        os.close(to_read[0])
        os.close(to_write[1])
        with os.fdopen(to_read[1], 'wb') as write, os.fdopen(to_write[0], 'rb') as read:
            try:
                yield Page(process, read, write)
            finally:
                process.terminate()
                process.wait()
