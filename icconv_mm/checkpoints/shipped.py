"""Trained weights that come with the package, by the files in ``icconv_mm/weights``.

``NAME.safetensors`` is a classifier with the backbone NAME, ``NAME_detection.safetensors`` a detector without layers
that depend on classes. The address ``icconv_mm://NAME`` means such a file wherever the package lies: configs, which
move between machines, name it as ``torchvision://NAME``, and mmengine loads it.
"""

from pathlib import Path

from icconv_mm.checkpoints import reading
from icconv_mm.errors import MissingFileError

SCHEME = 'icconv_mm://'
FOLDER = Path(__file__).resolve().parents[1] / 'weights'
_ENDINGS = {'classification': '', 'detection': '_detection'}  # of a file's name, by the task of its network


def weights_name(backbone: str, task: str) -> str:
    """Returns the name of the weights of a backbone's classifier or detector."""
    return f'{backbone}{_ENDINGS[task]}'


def find_weights(backbone: str, *tasks: str) -> str | None:
    """Returns the address of a backbone's first weights of some tasks, in their order; None without any.

    Args:
        backbone: The name of the backbone.
        tasks: ``'classification'`` or ``'detection'``.
    """
    names = (weights_name(backbone, task) for task in tasks)
    return next((f'{SCHEME}{name}' for name in names if _file(name).is_file()), None)


def is_address(checkpoint: object) -> bool:
    """Returns whether a config's checkpoint is one of these weights."""
    return isinstance(checkpoint, str) and checkpoint.startswith(SCHEME)


def path_of(address: str) -> Path:
    """Returns the file of an address.

    Raises:
        MissingFileError: This installation has no such weights.
    """
    name = address.removeprefix(SCHEME)
    names = sorted(path.stem for path in FOLDER.glob(f'*{reading.SAFETENSORS}'))
    if name not in names:
        raise MissingFileError(f'{address}: icconv_mm has no such weights; there are: {", ".join(names) or "none"}')
    return _file(name)


def size_of(address: str) -> int:
    """Returns the pixels of a side of the images that a classifier was trained on."""
    return int(reading.read_metadata(path_of(address))['size'])


def origin_of(address: str) -> str:
    """Returns what weights were trained on, as their file says it."""
    return reading.read_metadata(path_of(address)).get('data', 'unknown images')


def _file(name: str) -> Path:
    return FOLDER / f'{name}{reading.SAFETENSORS}'
