"""Bad input is one message; a fault of ours keeps its traceback."""

import errno
import functools
import os
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader, Dataset

from icconv_mm.app import commands
from icconv_mm.app.commands import command_line
from icconv_mm.app.commands.command_line import reporting, say_how_to_go_on
from icconv_mm.app.training import own_data
from icconv_mm.datasets.loading import ImageFileError
from icconv_mm.errors import ArgumentError, InputError, naming
from icconv_mm.versions import command_of


def test_bad_input_exits_with_a_message(capsys):
    with pytest.raises(SystemExit) as end, reporting():
        raise InputError('config: no such file: c.py')
    assert end.value.code == 'error: config: no such file: c.py'  # printed to stderr, status 1


def test_debug_raises():
    with pytest.raises(InputError), reporting(debug=True):
        raise InputError('x')


@pytest.mark.parametrize('number', [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.ENOTDIR])
def test_what_the_disk_refuses(number):
    with pytest.raises(SystemExit, match=f'^error: runs/a: {os.strerror(number)}$'), reporting():
        raise OSError(number, '', 'runs/a')


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), reporting():
        1 / 0  # noqa: B018


def test_a_second_line_says_how_objects_stand(capsys):
    with pytest.raises(SystemExit, match=r'^error: a\nNothing was written\.$'), reporting(after='Nothing was written.'):
        raise InputError('a')
    with pytest.raises(SystemExit) as end, reporting(interrupted='the same command goes on'):
        raise KeyboardInterrupt
    assert end.value.code == 130 and capsys.readouterr().err == '\ninterrupted; the same command goes on\n'


class Bad(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ImageFileError('a.jpg: truncated or corrupt (broken data stream)')


def test_error_from_a_worker_of_the_data_loader():
    with pytest.raises(SystemExit) as end, reporting():
        next(iter(DataLoader(Bad(), num_workers=1)))
    assert end.value.code == 'error: a.jpg: truncated or corrupt (broken data stream)'
    with pytest.raises(SystemExit) as end, reporting(), naming('c.py'):
        next(iter(DataLoader(Bad(), num_workers=1)))
    assert end.value.code == 'error: c.py: a.jpg: truncated or corrupt (broken data stream)'


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        ([], {}),
        (['--voc-from', '0'], {'voc_from': 0}),
        (['--voc-from', '1', '--strict'], {'voc_from': 1, 'strict': True}),
    ],
)
def test_options_of_annotations_reach_the_config_that_is_written(tmp_path, monkeypatch, words, expected):
    """Also a 0, which is no option that was not given."""

    @functools.wraps(own_data.config_for)
    def config_for(data, **given):
        others = dict.fromkeys(('epochs', 'work_dir', 'load_from'))
        assert given == {'task': 'detection', **expected, **others, 'resume': False}
        raise InputError('it was called')

    monkeypatch.setattr(own_data, 'config_for', config_for)
    parser = command_line.parser('')
    parser.add_argument('config', nargs='+')
    command_line.add_work_dir(parser)
    command_line.add_data(parser)
    command_line.add_labels(parser)
    for name in ('--epochs', '--iters'):
        parser.add_argument(name, type=int)
    args = parser.parse_args([str(tmp_path), '--task', 'detection', *words])
    with pytest.raises(InputError, match='it was called'):
        command_line.read_training(args)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (['--epoch', '3'], 'unrecognized arguments: --epoch 3; did you mean --epochs?'),
        (['--epoch=3'], 'unrecognized arguments: --epoch=3; did you mean --epochs?'),
        (['--colour'], 'unrecognized arguments: --colour\n'),
        (['--epochs', 'x'], "argument --epochs: invalid int value: 'x'\n"),
    ],
)
def test_an_unknown_option_gets_the_nearest_one(given, message, capsys):
    parser = command_line.parser('A tool.')
    parser.add_argument('--epochs', type=int)
    with pytest.raises(SystemExit):
        parser.parse_args(given)
    assert message in capsys.readouterr().err


def test_a_pattern_that_the_shell_has_replaced_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ('a.jpg', 'b.jpg'):
        (tmp_path / name).touch()
    parser = command_line.parser('A tool.')
    parser.add_argument('--images')
    for given, is_reported in (['a.jpg', 'b.jpg'], True), (['a.jpg', 'c.jpg'], False):
        with pytest.raises(SystemExit):
            parser.parse_args(['--images', *given])
        message = capsys.readouterr().err
        assert f'unrecognized arguments: {given[1]}' in message
        assert ("write a pattern of files in quotes, such as 'DIR/*.jpg'" in message) == is_reported


def test_a_config_is_no_name_of_a_file():
    from mmengine.config import Config

    from icconv_mm.apis import load_config

    with pytest.raises(ArgumentError, match='path: expected the name of a config file, got Config'):
        load_config(Config({}))


@pytest.mark.parametrize('duration', [None, '10m'])
@pytest.mark.parametrize('saved', [False, True])
def test_an_interrupted_training_says_how_it_goes_on(saved, duration, tmp_path, capsys):
    pytest.importorskip('mmengine')
    checkpoint = tmp_path / 'iter_3.pth'
    if saved:
        checkpoint.touch()
        (tmp_path / 'last_checkpoint').write_text(str(checkpoint))
    run = SimpleNamespace(cfg=SimpleNamespace(work_dir=str(tmp_path)), name='c.py')
    say_how_to_go_on(run, duration)
    within = ['--time', duration] if duration else []
    command = command_of('train', 'c.py', '--work-dir', str(tmp_path), *within, '--resume')
    expected = f'{checkpoint} is saved; {command} goes on from there' if saved else 'nothing is saved yet'
    assert capsys.readouterr().err == f'\n{expected}\n'


def test_an_option_that_takes_the_folder_is_told(monkeypatch, capsys):
    words = ['train', '--classes', 'cat', 'folder']
    monkeypatch.setattr('sys.argv', ['icconv', *words])
    with pytest.raises(SystemExit):
        commands.main(words)
    assert 'required: CONFIG (give them first: some options take all words that follow)' in capsys.readouterr().err
