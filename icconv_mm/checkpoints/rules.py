"""A user's rename rules for keys that no converter knows."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from icconv_mm.errors import InputError, naming
from icconv_mm.utils.files import read_small


@dataclass(frozen=True)
class RenameRule:
    """Rename keys that ``pattern`` (a regular expression) matches as a whole; ``replace=None`` leaves them out."""

    pattern: str
    replace: str | None

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern).sub(self.replace or '', '')  # a bad group reference fails here, not halfway
        except (re.error, IndexError) as error:
            raise InputError(f'rename rule {self.pattern!r} -> {self.replace!r}: {error}') from None

    def matches(self, key: str) -> bool:
        """Whether the rule speaks of ``key``."""
        return re.fullmatch(self.pattern, key) is not None

    def rename(self, key: str) -> str:
        """The new name of a key that the rule matches."""
        return re.fullmatch(self.pattern, key).expand(self.replace)


def load_rules(path: str | Path) -> list[RenameRule]:
    r"""Read rename rules from a JSON or YAML file: a list of ``{"pattern": REGEX, "replace": KEY or null}``.

    ``replace`` may refer to groups of the pattern: ``neck\.p(\d)\.(.*)`` -> ``neck.fpn_convs.\1.conv.\2``.

    Raises:
        MissingFileError, InputError: The file is missing or malformed; the message names the file and the entry.
    """
    path = Path(path)
    import yaml  # the one place that needs it

    try:
        text = read_small(path, 'file of rename rules').decode()
        entries = json.loads(text) if path.suffix == '.json' else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f'{path}: not a {"JSON" if path.suffix == ".json" else "YAML"} file: {error}') from None
    if not isinstance(entries, list):
        raise InputError(f'{path}: expected a list of {{pattern, replace}}, found {type(entries).__name__}')
    rules = []
    for index, entry in enumerate(entries):
        with naming(f'{path}: rule {index}'):
            if not isinstance(entry, dict) or set(entry) != {'pattern', 'replace'}:
                raise InputError(f'expected the fields pattern and replace, found {entry!r}')
            if not isinstance(entry['pattern'], str) or not isinstance(entry['replace'], (str, type(None))):
                raise InputError(f'pattern must be text, replace text or null, found {entry!r}')
            rules.append(RenameRule(**entry))
    return rules
