"""Bad input is one sentence; a fault of ours keeps its traceback."""

import re

import pytest
from torch.utils.data import DataLoader, Dataset

from icconv_mm.datasets.loading import ImageFileError
from icconv_mm.errors import InputError, building, reporting


def test_bad_input_exits_with_a_sentence(capsys):
    with pytest.raises(SystemExit) as end, reporting():
        raise InputError('config: no such file: c.py')
    assert end.value.code == 'error: config: no such file: c.py'  # printed to stderr, status 1


def test_debug_raises():
    with pytest.raises(InputError), reporting(debug=True):
        raise InputError('x')


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), reporting():
        1 / 0  # noqa: B018


def test_building_names_what_was_built():
    text = "ICResNet.__init__() got an unexpected keyword argument 'dpeth'"
    with pytest.raises(InputError, match=re.escape(f'c.py: {text}')), building('c.py'):
        raise TypeError(text)
    with pytest.raises(InputError, match=r'c\.py: ResNeXt5 is not in the mmdet::model registry'), building('c.py'):
        raise KeyError('ResNeXt5 is not in the mmdet::model registry')
    with pytest.raises(ImageFileError), building('c.py'):
        raise ImageFileError('a.jpg: truncated')


class Bad(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ImageFileError('a.jpg: truncated or corrupt (broken data stream)')


def test_error_from_a_worker_of_the_data_loader():
    with pytest.raises(SystemExit) as end, reporting():
        next(iter(DataLoader(Bad(), num_workers=1)))
    assert end.value.code == 'error: a.jpg: truncated or corrupt (broken data stream)'
