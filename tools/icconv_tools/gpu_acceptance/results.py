"""The file of results: what it was measured on and with, and every figure from the moment that it is there."""

import json
from datetime import datetime, timezone
from pathlib import Path

from icconv_mm.errors import InputError
from icconv_mm.utils.files import write_json


class ResultsFile:
    """The figures of one machine and one version, kept in a JSON file.

    The file has what raw files of docs/measurements have; ``source`` is a digest of the sources, and ``running`` the
    measurement under way, with which a process may have ended.

    Args:
        path: The file; read if it is there.
        origin: Machine, versions, options and source, all of which must be those of the file.
        command: What is run, for a new file.

    Raises:
        InputError: The file is no such file, or of another machine or version; its folder is not there; it cannot be
            written.
    """

    def __init__(self, path: Path, origin: dict, command: str):
        self.path = path
        if not path.parent.is_dir() or path.is_dir():
            raise InputError(f'{path}: expected a file in an existing folder')
        if path.exists():
            self.reload()
            self._check(origin)
            return
        date = datetime.now(timezone.utc).isoformat(timespec='seconds')
        self._content = {'date': date, 'command': command, **origin, 'running': None, 'figures': []}
        self.write()

    def reload(self) -> None:
        """Read what another process has written."""
        try:
            content = json.loads(self.path.read_text())
            content['figures'], content['running']
        except (ValueError, KeyError, TypeError):
            raise InputError(f'{self.path}: no file of results of this tool; give another --out') from None
        self._content = content

    def _check(self, origin: dict) -> None:
        for name, here in json.loads(json.dumps(origin)).items():
            found = self._content.get(name)
            if found != here:
                raise InputError(
                    f'{self.path}: its figures were measured with {name} {found}, here it is {here}: they do not mix; '
                    'give another --out'
                )

    @property
    def running(self) -> str | None:
        """The measurement that has begun and not ended."""
        return self._content['running']

    @property
    def figures(self) -> dict[str, dict]:
        """Results by name, in the order in which they came."""
        return {figure['name']: figure for figure in self._content['figures']}

    def begin(self, name: str) -> None:
        """Note what is under way."""
        self._content['running'] = name
        self.write()

    def put(self, name: str, result: dict) -> None:
        """Keep a result, in the place of an older one of this name."""
        kept = [figure for figure in self._content['figures'] if figure['name'] != name]
        self._content |= {'running': None, 'figures': [*kept, {'name': name, **result}]}
        self.write()

    def forget(self, names: set[str]) -> None:
        """Drop results, so that they are measured anew."""
        self._content['figures'] = [figure for figure in self._content['figures'] if figure['name'] not in names]
        self.write()

    def write(self) -> None:
        """The whole file or, if this is cut short, the one before it."""
        write_json(self.path, self._content, indent=1)
