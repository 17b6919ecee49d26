"""The folder of a training reads its own files, wherever it was copied or moved to."""

import os

import pytest

from icconv_mm.errors import ArgumentError, MissingFileError
from icconv_mm.run_folder import (
    BESIDE,
    IMAGES,
    checkpoint_of,
    configs_beside,
    keeping_earlier_training,
    last_checkpoint,
    same_name_in,
    set_aside,
    write_last,
)


@pytest.mark.parametrize('named', ['/where/it/was/a.pth', 'work/a.pth', 'a.pth', 'C:\\\\runs\\\\a.pth', '../../a.pth'])
def test_a_name_is_that_of_a_file_in_this_folder(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'run').mkdir()
    write_last('run', named)
    with pytest.raises(ArgumentError, match=r'names .*a\.pth, which is gone; there is no other'):
        last_checkpoint('run')
    (tmp_path / 'run/a.pth').touch()
    assert last_checkpoint('run') == str(tmp_path / 'run/a.pth')


def test_a_copied_folder_goes_on_from_its_own_checkpoint_and_one_of_another_folder_is_found(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
    (tmp_path / 'a/iter_3.pth').touch()
    for name in ('a', 'b'):
        write_last(tmp_path / name, str(tmp_path / 'a/iter_3.pth'))
        assert last_checkpoint(tmp_path / name) == str(tmp_path / 'a/iter_3.pth')  # saved in another folder
    (tmp_path / 'b/iter_3.pth').touch()
    assert last_checkpoint(tmp_path / 'b') == str(tmp_path / 'b/iter_3.pth')
    write_last(tmp_path / 'b', 's3://bucket/iter_3.pth')
    assert last_checkpoint(tmp_path / 'b') == 's3://bucket/iter_3.pth'
    assert same_name_in('s3://bucket/iter_3.pth', [tmp_path / 'a']) is None


@pytest.mark.parametrize(
    'content', [b'', bytes(range(128, 256)) * 4, b'\0' * 64, b'x' * 100_000, b'/nowhere/a.pth', b'..', None]
)
def test_a_damaged_name_is_one_message(tmp_path, content):
    file = tmp_path / 'last_checkpoint'
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(ArgumentError, match=r'^resume: .*last_checkpoint') as caught:
        last_checkpoint(tmp_path)
    assert len(str(caught.value)) < 1500
    (tmp_path / 'epoch_2.pth').touch()
    assert checkpoint_of(tmp_path) == str(tmp_path / 'epoch_2.pth')


def test_a_folder_stands_for_its_newest_best_checkpoint(tmp_path):
    with pytest.raises(MissingFileError, match=r'^checkpoint: none \(\*\.pth\) in the folder'):
        checkpoint_of(tmp_path)
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/a.pth').touch()
    with pytest.raises(MissingFileError, match=rf'; folders in it have some: {tmp_path}/run$'):
        checkpoint_of(tmp_path)
    for age, name in enumerate(('best_new.pth', 'best_old.pth', 'epoch_9.pth', 'epoch_8.pth')):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (9 - age, 9 - age))
    assert checkpoint_of(tmp_path) == str(tmp_path / 'best_new.pth')
    for path in tmp_path.glob('best_*'):
        path.unlink()
    assert checkpoint_of(str(tmp_path)) == str(tmp_path / 'epoch_9.pth')
    (tmp_path / 'last_checkpoint').write_text('/where/it/was/epoch_8.pth')
    assert checkpoint_of(str(tmp_path)) == str(tmp_path / 'epoch_8.pth')
    (tmp_path / 'last_checkpoint').write_text('epoch_7.pth')
    assert checkpoint_of(str(tmp_path)) == str(tmp_path / 'epoch_9.pth')
    assert checkpoint_of(tmp_path / 'epoch_8.pth') == str(tmp_path / 'epoch_8.pth')
    assert checkpoint_of('https://host/a.pth') == 'https://host/a.pth'
    with pytest.raises(MissingFileError, match=r'^checkpoint: no such file: a\.pth'):
        checkpoint_of('a.pth')


def test_an_earlier_training_is_set_aside_whole(tmp_path):
    assert set_aside(tmp_path, 'run.py') is None
    folder = tmp_path / 'annotations_0123456789ab'
    folder.mkdir()
    (folder / 'a.json').touch()
    (tmp_path / 'mine.txt').touch()
    (tmp_path / 'mine.pth').touch()
    for number in (1, 2):
        (tmp_path / 'run.py').write_text(f"a = here + '/{folder.name}'; b = here + '/pattern.json'; c = {number}")
        (tmp_path / 'pattern.json').write_text(f'[{number}]')
        for name in ('epoch_1.pth', 'best_AP_epoch_1.pth', 'last_checkpoint', 'report.json'):
            (tmp_path / name).write_text(f'{number}')
        moved = set_aside(tmp_path, 'run.py')
        assert moved == tmp_path / f'earlier_{number}' and (moved / folder.name / 'a.json').is_file()
        assert (moved / 'pattern.json').read_text() == f'[{number}]'
        assert f'c = {number}' in (moved / 'run.py').read_text()
        assert (moved / 'report.json').read_text() == (moved / 'epoch_1.pth').read_text() == f'{number}'
        assert checkpoint_of(moved) == str(moved / 'best_AP_epoch_1.pth')
    left = {'mine.txt', 'mine.pth', 'run.py', 'pattern.json', folder.name, 'earlier_1', 'earlier_2'}
    assert {path.name for path in tmp_path.iterdir()} == left


WRITTEN = f"""annotations = {BESIDE} + '/annotations_0'
{IMAGES}
custom_imports = dict(allow_failed_imports=False, imports=['a'])
model = dict(type='A', low=-1.5, high=float('inf'), list=[dict(a=(1, None)), {{'b.c': True}}])
pattern = {BESIDE} + '/p.json'
data = dict(ann_file=annotations + '/train.json', img=images)
"""


DUMPED = """annotations = '/where/it/was/annotations_0'
custom_imports = dict(
    allow_failed_imports=False,
    imports=['a'])
data = dict(ann_file='/where/it/was/annotations_0/train.json', img='/images')
images = '/images'
model = dict(type='A', low=-1.5, high=float('inf'), list=[dict(a=(1, None)), {'b.c': True}])
pattern = '/home/p.json'
"""


@pytest.mark.parametrize(
    'written, dumped',
    [
        (WRITTEN, DUMPED),
        ('model = dict()', 'model = dict()'),
        ('model = 0\nmodel = list([1])', 'model = list([1,])'),
    ],
)
@pytest.mark.parametrize('log', ['20260101_000000', '../20260101_000000', None])  # the second: of an earlier training
def test_a_config_that_a_training_wrote(tmp_path, written, dumped, log):
    folder = tmp_path / 'run'
    folder.mkdir()
    (folder / 'a.py').write_text(written)
    (folder / 'notes.py').write_text("model = dict(type='os.system', command='true')")
    assert configs_beside(folder / 'net.pth', lambda _: None)[0] == []
    if log is not None:
        (folder / log / 'vis_data').mkdir(parents=True)
        (folder / log / 'vis_data/config.py').write_text(dumped)
    configs = configs_beside(folder / 'net.pth', lambda _: dumped if log is None else None)
    assert configs == ([folder / 'a.py'], [folder / 'notes.py'])


def test_of_several_configs_that_of_the_checkpoint_counts(tmp_path):
    for name in 'ab':
        (tmp_path / f'{name}.py').write_text(f'model = dict(type={name!r})')
        (tmp_path / name / 'vis_data').mkdir(parents=True)
        (tmp_path / name / 'vis_data/config.py').write_text(f'model = dict(type={name!r})')
    files = [tmp_path / 'a.py', tmp_path / 'b.py']
    assert configs_beside(tmp_path / 'net.pth', lambda _: "model = dict(type='b')") == ([files[1]], [files[0]])
    assert configs_beside(tmp_path / 'net.pth', lambda _: "model = dict(type='c')") == (files, [])


@pytest.mark.parametrize(
    'changed',
    [
        "model = dict(type='os.system')",
        "model = dict(type='os.' + 'system')",
        "model = dict(type=images)\nimages = 'os.system'",
        "images = 'os.system'\nmodel = dict(type=images)",
        "model = dict(type='A')\ncustom_imports = dict(imports=['mine'])",
        "model = dict(type='A', depth=2)",
        "model = dict(type='A', type2=1)",
    ],
)
def test_a_config_that_was_changed_is_none_that_a_training_wrote(tmp_path, changed):
    (tmp_path / 'a.py').write_text(changed)
    assert configs_beside(tmp_path / 'net.pth', lambda _: "model = dict(type='A')") == ([], [tmp_path / 'a.py'])


@pytest.mark.parametrize(
    'text',
    [
        'import os\nmodel = dict()',
        'print(1)\nmodel = dict()',
        "model = __import__('os').system('true')",
        "model = dict(a=open('x', 'w'))",
        'model = dict(a=[().__class__])',
        'model = dict(**dict(a=print(1)))',
        'dict = print\nmodel = dict(a=1)',
        'dict = float\nmodel = dict(a=1)',
        'dict = 1\nmodel = 2',
        'model = [print(i) for i in (1,)]',
        "model = f'{print(1)}'",
        'model = (lambda: 1)()',
        "_base_ = './other.py'\nmodel = dict()",
        'a = 1',
        'model = unknown',
        'model: print(1) = 1',
        'model = (',
        'model = ' + '(' * 5000,
        f'model = {"[" * 195}{"]" * 195}',
        '\0',
        '',
    ],
)
def test_a_script_beside_a_checkpoint_is_no_config(tmp_path, text):
    (tmp_path / 'a.py').write_text(text)
    assert configs_beside(tmp_path / 'net.pth', lambda _: text) == ([], [tmp_path / 'a.py'])


@pytest.mark.parametrize(('start', 'is_kept'), [(None, False), ('icconv_mm://small', False), ('epoch_1.pth', True)])
def test_a_training_goes_on_from_a_checkpoint_in_its_folder_alone(tmp_path, monkeypatch, start, is_kept):
    """An address is no such checkpoint, in whatever folder the command is called."""
    monkeypatch.chdir(tmp_path)
    for name in ('epoch_1.pth', 'run.py'):
        (tmp_path / name).touch()
    with keeping_earlier_training(tmp_path, 'run.py', start, goes_on=False):
        assert (tmp_path / 'epoch_1.pth').is_file() == is_kept != (tmp_path / 'earlier_1' / 'epoch_1.pth').is_file()
