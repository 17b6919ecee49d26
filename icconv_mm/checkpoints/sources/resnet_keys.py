"""Finding a ResNet in a file of another project by its keys, which all of them have from torchvision."""

import re
from collections.abc import Iterable

from icconv_mm.checkpoints.conversion import Conversion
from icconv_mm.checkpoints.rules import RenameRule
from icconv_mm.errors import InputError

RESNET_LAYER = r'(?:conv1|bn1|layer[1-4]\.\d+\.(?:conv[123]|bn[123]|downsample\.[01]))'


def choose_backbone(prefixes: Iterable[str], wanted: str | None, kind: str) -> str:
    """The prefix ``wanted``, or the only one there is.

    Args:
        prefixes: Prefixes of the keys before ``layer1``; repetitions do not count.
        wanted: The user's choice, if any.
        kind: Name of what the prefixes belong to, for the messages.

    Raises:
        InputError: ``wanted`` is not among them, or none is wanted and there are several.
    """
    prefixes = list(dict.fromkeys(prefixes))
    found = ', '.join(map(repr, prefixes))
    if wanted is not None:
        if wanted not in prefixes:
            raise InputError(f'no {kind} under the prefix {wanted!r}; found {found}')
        return wanted
    if len(prefixes) > 1:
        raise InputError(f'the file holds {len(prefixes)} {kind}s, under {found}; say which (backbone_prefix)')
    return prefixes[0]


def strip_prefix(conversion: Conversion, prefix: str) -> None:
    """Take from the keys that are left what stands before the backbone, as a wrapper of the whole network puts it."""
    outer = prefix.removesuffix('backbone.')
    conversion.rename_left([RenameRule(rf'{re.escape(outer)}(.*)', r'\1')])
