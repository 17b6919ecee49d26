"""Errors that the user can fix: kinds, places, sentences."""

import pickle
import re
from pathlib import Path

import pytest

import icconv_mm
from icconv_mm.datasets.loading import ImageFileError
from icconv_mm.errors import (
    ArgumentError,
    InputError,
    InputTypeError,
    MissingArgumentFileError,
    MissingFileError,
    MissingLibraryError,
    UserError,
    building,
    naming,
)


def test_building_names_what_was_built():
    text = "ICResNet.__init__() got an unexpected keyword argument 'dpeth'"
    with pytest.raises(InputError, match=re.escape(f'c.py: {text}')), building('c.py'):
        raise TypeError(text)
    with pytest.raises(InputError, match=r'c\.py: ResNeXt5 is not in the mmdet::model registry'), building('c.py'):
        raise KeyError('ResNeXt5 is not in the mmdet::model registry')
    with pytest.raises(ImageFileError), building('c.py'):
        raise ImageFileError('a.jpg: truncated')


def test_naming_puts_the_place_before_the_message_once():
    with (
        pytest.raises(MissingFileError, match=r'^c\.py: p\.json: gone$'),
        naming('c.py'),
        naming('p.json'),
        naming('p.json'),
    ):
        raise MissingFileError('gone')
    with (
        pytest.raises(InputError, match=r"^out\.pth: .*Permission denied: 'out\.pth\.part'"),
        naming('out.pth', OSError),
    ):
        raise PermissionError(13, 'Permission denied', 'out.pth.part')
    with pytest.raises(ZeroDivisionError, match=r'^x$'), naming('c.py', OSError):
        raise ZeroDivisionError('x')


def test_errors_for_users_are_also_what_python_calls_them():
    assert issubclass(InputError, ValueError) and issubclass(MissingFileError, FileNotFoundError)
    assert issubclass(MissingLibraryError, ImportError) and issubclass(MissingArgumentFileError, MissingFileError)
    assert issubclass(ImageFileError, RuntimeError) and issubclass(ImageFileError, UserError)


@pytest.mark.parametrize(
    'error',
    [
        InputError('gone'),
        MissingFileError('gone'),
        MissingLibraryError('gone'),
        ArgumentError('out', 'gone'),
        MissingArgumentFileError('out', 'gone'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_kind_keeps_its_message_with_a_place_and_as_bytes(error):
    """Also ImportError and OSError, whose messages are more than their arguments."""
    message = str(error)
    assert message in ('gone', 'out: gone')
    with pytest.raises(type(error)), naming('c.py'):
        raise error
    assert str(error) == f'c.py: {message}'
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied)) == (type(error), f'c.py: {message}')
    assert getattr(error, 'errno', None) is None and vars(copied) == vars(error)


@pytest.mark.parametrize('kind', [InputError, TypeError, ValueError])
def test_a_wrong_kind_is_of_the_user_too(kind):
    with pytest.raises(kind, match=r'^c\.py: no option'), naming('c.py'):
        raise InputTypeError('no option')


@pytest.mark.parametrize(
    'package',
    ['apis', 'backbones', 'datasets', 'engine', 'layers', 'models.py', 'necks', 'patterns', 'tasks', 'utils'],
)
def test_arguments_are_refused_by_errors_of_users(package):
    """A plain ValueError keeps its traceback; those of operators alone are plain, whose callers are layers."""
    root = Path(icconv_mm.__file__).parent / package
    plain = re.compile(r'raise (ValueError|TypeError|KeyError)\(')
    files = [root] if root.is_file() else sorted(root.rglob('*.py'))
    assert files and not [str(file) for file in files if plain.search(file.read_text())]
