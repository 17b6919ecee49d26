"""Errors that the user can fix: kinds, places, messages."""

import pickle
import re

import pytest

from icconv_mm.arguments import check_all_positive, check_not_negative, check_positive, check_probability
from icconv_mm.datasets.loading import ImageFileError
from icconv_mm.errors import (
    ArgumentError,
    InputError,
    InputTypeError,
    MissingFileError,
    MissingLibraryError,
    UserError,
    naming,
)


def test_naming_makes_what_a_config_caused_an_input_error():
    text = "ICResNet.__init__() got an unexpected keyword argument 'dpeth'"
    with pytest.raises(InputError, match=re.escape(f'c.py: {text}')), naming('c.py', Exception):
        raise TypeError(text)
    with (
        pytest.raises(InputError, match=r'c\.py: ResNeXt5 is not in the registry'),
        naming('c.py', KeyError),
    ):
        raise KeyError('ResNeXt5 is not in the registry')
    with pytest.raises(ImageFileError), naming('c.py', Exception):
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
    assert issubclass(MissingLibraryError, ImportError)
    assert issubclass(ImageFileError, RuntimeError) and issubclass(ImageFileError, UserError)


@pytest.mark.parametrize(
    'error',
    [
        InputError('gone'),
        MissingFileError('gone'),
        MissingLibraryError('gone'),
        ArgumentError('out', 'gone'),
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


@pytest.mark.parametrize('given', [0, -1, 1.0, '8', None, [8]], ids=repr)
def test_what_is_no_positive_integer(given):
    check_positive(width=8)
    with pytest.raises(InputError, match=r'^width must be a positive integer, got '):
        check_positive(channels=8, width=given)


@pytest.mark.parametrize('given', [8, None, (), [8, 0], ['8'], 'ab'], ids=repr)
def test_what_is_no_list_of_them(given):
    check_all_positive(strides=(1, 2), kernels=[3])
    with pytest.raises(InputError, match=r'^strides must be a list of positive integers, got '):
        check_all_positive(strides=given)


@pytest.mark.parametrize('given', [-1, 0.0, '0', None], ids=repr)
def test_what_is_no_number_from_0_on(given):
    check_not_negative(padding=0)
    with pytest.raises(InputError, match=r'^padding must be 0 or more, got '):
        check_not_negative(padding=given)


@pytest.mark.parametrize('given', [1, -0.1, float('nan'), '0.5', None], ids=repr)
def test_what_is_no_probability_below_1(given):
    check_probability(drop=0, rate=0.5)
    with pytest.raises(InputError, match=r'^rate must be at least 0 and below 1, got '):
        check_probability(rate=given)
