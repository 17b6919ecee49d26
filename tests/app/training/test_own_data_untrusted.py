"""Names and paths of data never become source: what written configs and their copies hold, and what is refused."""

import json
import os
import re
import shutil
from pathlib import Path

import labelled
import pytest
import torch
from drawn_sets import edited
from mmengine.config import Config

from icconv_mm.app.annotations.convert import convert_dataset
from icconv_mm.app.annotations.find import read_datasets
from icconv_mm.app.training.own_data import config_for
from icconv_mm.engine.saving import CopyAnnotationsHook
from icconv_mm.errors import ArgumentError, InputError, name_defect, printable
from icconv_mm.patterns import geometric_pattern, read_patterns, write_patterns

QUICK = dict(backbone='ic_resnet18', pretrained='none', say=lambda line: None)
LINE_BREAK, MARK = 'a\n# a comment', 'a {{ fileBasename }}'  # which mmengine would replace by the name of the config
BAD = pytest.mark.parametrize('name', [LINE_BREAK, MARK])


def _renamed(folder, name, keypoint):
    """A COCO set with a name in the place of its first keypoint or class."""
    labelled.coco(folder, *['keypoints'] * keypoint)
    for path in folder.glob('*.json'):
        with edited(path) as content:
            for category in content['categories'] if keypoint else ():
                category['keypoints'][0] = name
            if not keypoint:
                content['categories'][0]['name'] = name
    return folder


@BAD
@pytest.mark.parametrize('location', ['folder', 'file', 'above'])
def test_a_config_has_no_path_of_the_data(tmp_path, name, location):
    """Not even as a literal; it is read as it is, and its data set has the images."""
    from mmengine.registry import DATASETS, init_default_scope

    data = labelled.yolo(tmp_path / 'plain')
    if location == 'above':
        (tmp_path / name).mkdir()
    target = tmp_path / {'folder': name, 'file': 'data', 'above': f'{name}/data'}[location]
    shutil.move(data, target)
    given = target
    if location == 'file':
        given = (target / 'data.yaml').rename(target / f'{name}.yaml')
    if name == LINE_BREAK and location != 'file':  # whose images have it in their paths, and are left out
        with pytest.raises(InputError, match='control character'):
            config_for(given, 'detection', work_dir=tmp_path / 'run', **QUICK)
        return
    cfg = config_for(given, 'detection', work_dir=tmp_path / 'run', **QUICK)
    text = Path(cfg.filename).read_text()
    assert '{{' not in text and '# a comment' not in text and str(tmp_path) not in text
    init_default_scope('mmdet')
    assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 2
    assert json.loads(Path(cfg.annotations, 'locations.json').read_text()) == [str(given)]


@pytest.mark.parametrize(
    ('task', 'kind'), [('detection', ()), ('instance', ()), ('pose', ('keypoints',)), ('all', ('keypoints',))]
)
def test_a_config_says_nothing_of_names(tmp_path, task, kind):
    """It is the same, letter by letter, whatever classes, keypoints, images and folders are called."""
    texts = []
    for root, name in (('a', 'cat'), ("it's", '"""\\'), ('ä b', "');#")):
        data = labelled.coco(tmp_path / root / name.replace('\\', ''), *kind)
        for path in data.glob('*.json'):
            text = path.read_text()
            for old in ('cat', 'dog', *['nose', 'tail', 'left_ear', 'right_ear'] * bool(kind)):
                text = text.replace(f'"{old}"', json.dumps(f'{name}{old}'))
            path.write_text(text)
        cfg = config_for(data, task, work_dir=tmp_path / root / 'run', size=64, epochs=2, **QUICK)
        text = Path(cfg.filename).read_text()
        texts.append(re.sub(r'annotations_\w+|^# sha256.*', '', text))
        assert cfg.train_dataloader.dataset
    assert texts[0] == texts[1] == texts[2]


@BAD
def test_a_run_is_not_called_so(tmp_path, monkeypatch, name):
    """By default it is called after the data, whose folder may be called anything."""
    monkeypatch.chdir(tmp_path)
    data = labelled.yolo(tmp_path / name)
    for options in ({}, {'work_dir': tmp_path / name / 'run'}):
        with pytest.raises(ArgumentError, match=r'^work_dir: .* has (a control character|the template mark)'):
            config_for(data, 'detection', **options, **QUICK)
    assert not (tmp_path / 'work_dirs').exists()


@BAD
@pytest.mark.parametrize('task', ['detection', 'instance', 'keypoint'])
def test_names_of_classes_and_keypoints_are_refused(tmp_path, name, task):
    data = _renamed(tmp_path / 'data', name, task == 'keypoint')
    word = 'keypoint' if task == 'keypoint' else 'class'
    with pytest.raises(InputError, match=rf'data: the {word} .*: rename it$') as caught:
        convert_dataset(read_datasets(data)[0], 'pose' if task == 'keypoint' else task, tmp_path / 'out')
    assert '\n' not in str(caught.value)


@BAD
def test_names_that_are_asked_for_are_refused(tmp_path, name):
    data = labelled.seg_maps(tmp_path / 'data', ignore_index=11)
    with pytest.raises(InputError, match=r'the class .*: rename it'):
        convert_dataset(
            read_datasets(data)[0], 'semantic', tmp_path / 'out', classes=['road', name, 'car'], ignore_index=[11]
        )


@BAD
def test_names_of_a_checkpoint_are_refused(name):
    from icconv_mm.checkpoints.metadata import dataset_meta_of

    with pytest.raises(InputError, match=r'meta\.dataset_meta\.classes: the class .*: rename it'):
        dataset_meta_of({'meta': {'dataset_meta': {'classes': ['cat', name]}}})


def test_a_file_that_a_checkpoint_names_is_not_read(tmp_path):
    """A config may name files of classes and keypoints, a checkpoint may not."""
    pytest.importorskip('mmpose')
    from icconv_mm.app.adapters.libraries import adapter_of

    (tmp_path / 'k.json').write_text(json.dumps({'keypoints': ['a', 'b']}))
    named = dict.fromkeys(['classes', 'keypoints'], str(tmp_path / 'k.json'))
    assert adapter_of('mmpose').dataset_meta({'meta': {'dataset_meta': named}}) == named


@BAD
def test_a_path_of_weights_is_a_literal_or_refused(tmp_path, name):
    from icconv_mm import create_model

    weights = tmp_path / f'{name}.pth'
    torch.save(create_model('ic_resnet18', pattern='geometric_d4').state_dict(), weights)
    options = dict(QUICK, pretrained=str(weights), work_dir=tmp_path / 'run')
    data = labelled.yolo(tmp_path / 'data')
    if name == MARK:
        with pytest.raises(InputError, match=r'backbone: .* has \{\{, which mmengine replaces in a config'):
            config_for(data, 'detection', **options)
        return
    assert config_for(data, 'detection', **options).model.backbone.init_cfg.checkpoint == str(weights)


@pytest.mark.parametrize('quote', ['', "'", '"'])
def test_the_copy_in_the_folder_of_a_run_finds_its_own_annotations(tmp_path, quote):
    """As mmengine writes it, and after a move of the folder."""
    from types import SimpleNamespace

    root = tmp_path / f'runs{quote}'
    cfg = config_for(labelled.voc(tmp_path / 'data'), 'detection', work_dir=root / 'own', **QUICK)
    cfg.model.backbone.pattern = str(tmp_path / f'pattern{quote}.json')
    write_patterns([geometric_pattern(8, 2)], cfg.model.backbone.pattern)
    for run in (root / 'own', root / 'other'):
        run.mkdir(exist_ok=True)
        cfg.dump(run / 'own.py')
        CopyAnnotationsHook().before_run(SimpleNamespace(cfg=cfg, work_dir=str(run)))
        moved = run.rename(tmp_path / f'moved_{run.name}')
        copy = Config.fromfile(moved / 'own.py')
        name = Path(cfg.annotations).name
        assert copy.annotations == str(moved / name)
        assert copy.train_dataloader.dataset.ann_file == str(moved / name / 'detection_train.json')
        assert copy.val_evaluator.ann_file == str(moved / name / 'detection_val.json')
        assert 'own/annotations_' not in (moved / 'own.py').read_text()
        assert copy.model.backbone.pattern == str(moved / f'pattern{quote}.json')
        assert read_patterns(copy.model.backbone.pattern) == [geometric_pattern(8, 2)]
        copy.model.backbone.pattern = cfg.model.backbone.pattern
        assert copy.model.to_dict() == cfg.model.to_dict()
        moved.rename(run)
    assert not list(tmp_path.rglob('.icconv_mm_*'))


def test_a_call_that_is_stopped_leaves_the_config_and_its_annotations(tmp_path, monkeypatch):
    """At any step: the config that was there reads what it read before; the next call removes what was left."""
    data, run = labelled.seg_maps(tmp_path / 'data', ignore_index=11), tmp_path / 'run'

    def write(*classes):
        options = dict(work_dir=run, classes=classes, ignore_index=[11], size=64, epochs=1)
        return config_for(data, 'semantic', **options, **QUICK)

    def written_files(cfg):
        files = sorted(path for path in Path(cfg.annotations).rglob('*') if path.is_file())
        return Path(cfg.filename).read_text(), {path: path.read_bytes() for path in files}

    before = written_files(cfg := write('sky', 'road', 'car'))
    for name in ('map_conversion.atomic_write', 'convert.write_json'):
        monkeypatch.setattr(f'icconv_mm.app.annotations.{name}', _stopped)
        with pytest.raises(KeyboardInterrupt):
            write('car', 'road', 'sky')
        monkeypatch.undo()
        assert written_files(cfg) == before
    for name in ('config_text', 'os.replace', 'atomic_write'):
        monkeypatch.setattr(f'icconv_mm.app.training.own_data.{name}', _stopped)
        with pytest.raises(KeyboardInterrupt):
            write('car', 'road', 'sky')
        monkeypatch.undo()
        assert written_files(cfg) == before
    new = write('car', 'road', 'sky')
    assert written_files(new)[0] != before[0] and Path(new.classes).read_text() == 'car\nroad\nsky\n'
    assert sorted(path.name for path in run.iterdir()) == ['.run.lock', Path(new.annotations).name]
    assert written_files(write('sky', 'road', 'car')) == before


def _stopped(*args, **kwargs):
    raise KeyboardInterrupt


def test_two_calls_at_once(tmp_path):
    from icconv_mm.files import alone_in
    from icconv_mm.run_folder import RUN_LOCK

    data = labelled.yolo(tmp_path / 'data')
    refused = pytest.raises(ArgumentError, match=r'work_dir: another run is at work in .*run; choose another')
    with alone_in(tmp_path / 'run', 'a training is at work', RUN_LOCK), refused:
        config_for(data, 'detection', work_dir=tmp_path / 'run', **QUICK)


def test_a_config_of_the_former_form_is_kept(tmp_path):
    data, run = labelled.yolo(tmp_path / 'data'), tmp_path / 'run'
    Path(f'{run}.py').write_text(
        f"# boxes of {data}. Edit it, look at what is learned, train, test:\nclasses = ('a',)\n"
    )
    with pytest.raises(ArgumentError, match=r'of a former version: train it by its name, `python tools/train\.py'):
        config_for(data, 'detection', work_dir=run, **QUICK)


def test_names_on_a_terminal():
    assert printable('a\x1b[31m\r\nb') == 'a\\x1b[31m\\r\\nb' and printable('ä 中\u200d') == 'ä 中\u200d'
    assert str(InputError('a\x1b.png: gone\n  here')) == 'a\\x1b.png: gone\n  here'
    assert printable(os.fsdecode(b'caf\xe9')) == 'caf\\udce9' and printable('a\u202eb') == 'a\\u202eb'
    assert name_defect('{a}') is None and name_defect('a }}') and name_defect('a\u2028b') and name_defect('\x00')


# --- folders and paths of somebody else ---


@pytest.mark.parametrize('key', ['load_from', 'work_dir', 'annotations'])
def test_a_path_that_comes_later_is_refused_before_the_config_is_copied(tmp_path, key):
    """Of a checkpoint to resume from, of a folder that the run was moved into: mmengine writes it into its copy."""
    from icconv_mm.app.runs.begin import begin
    from icconv_mm.app.training.train import build_runner

    cfg = config_for(labelled.voc(tmp_path / 'data'), 'detection', work_dir=tmp_path / 'run', **QUICK)
    cfg.work_dir = str(tmp_path / 'run')
    cfg[key] = f'{tmp_path}/{MARK}'
    with pytest.raises(InputError, match=rf'^{key}: .* has the template mark \{{\{{, which mmengine replaces'):
        build_runner(begin(cfg))
    assert not list(tmp_path.rglob('run/run.py')) and not (tmp_path / MARK).exists()


def test_text_of_any_depth_is_looked_at():
    from icconv_mm.app.training.train import check_marks
    from icconv_mm.config_tree import walk

    check_marks(tuple(walk(Config(dict(a=[dict(b='{ {', c=('}}', 1, None))])))))
    for value in (['x', ('{{ fileBasename }}',)], {'{{': 1}):
        with pytest.raises(InputError, match=r'^a\.1'):
            check_marks(tuple(walk(Config(dict(a=[1, value])))))


def test_a_copy_of_a_config_holds_no_marks(tmp_path):
    """Where another tool has written it: as escapes they are read as they are, and are not replaced."""
    from types import SimpleNamespace

    cfg = config_for(labelled.voc(tmp_path / 'data'), 'detection', work_dir=tmp_path / 'run', **QUICK)
    cfg.load_from = f'{tmp_path}/{MARK}.pth'
    cfg.dump(tmp_path / 'run' / 'run.py')
    CopyAnnotationsHook().before_run(SimpleNamespace(cfg=cfg, work_dir=str(tmp_path / 'run')))
    assert '{{' not in (tmp_path / 'run/run.py').read_text()
    assert Config.fromfile(tmp_path / 'run/run.py').load_from == cfg.load_from


@pytest.mark.parametrize('place', ['', 'run'])
def test_a_run_in_the_folder_of_its_images(tmp_path, place):
    """Its annotations are not read as another set of the same images."""
    data = labelled.voc(tmp_path / 'data')
    first, second = (config_for(data, 'detection', work_dir=data / place, **QUICK) for _ in range(2))
    assert Path(first.annotations) == Path(second.annotations) and (data / place) in Path(first.annotations).parents


def test_folders_of_others_stay(tmp_path):
    """In the folder of a run, which may be that of the data; only what was written there is removed."""
    data = labelled.yolo(tmp_path / 'data')
    names = ('annotations_trainval2017', 'annotations_0123456789ab', '.annotations_old', 'annotations')
    for name in names:
        (data / name).mkdir()
        (data / name / 'mine.txt').write_text('mine')
    (tmp_path / 'elsewhere').mkdir()
    (data / 'annotations_ba9876543210').symlink_to(tmp_path / 'elsewhere')
    for classes in (['cat'], ['dog']):
        cfg = config_for(data / 'data.yaml', 'detection', work_dir=data, classes=classes, **QUICK)
    assert all((data / name / 'mine.txt').read_text() == 'mine' for name in names)
    assert (data / 'annotations_ba9876543210').is_symlink() and Path(cfg.annotations).is_dir()
    assert len([path for path in data.glob('annotations_*') if (path / 'locations.json').is_file()]) == 1


def test_what_others_have_put_in_the_place_of_annotations_is_not_read(tmp_path):
    data, run = labelled.yolo(tmp_path / 'data'), tmp_path / 'run'
    folder = Path(config_for(data, 'detection', work_dir=run, **QUICK).annotations)
    (folder / 'detection_classes.txt').write_text('other\nnames\n')
    with pytest.raises(ArgumentError, match='has been edited'):
        config_for(data, 'detection', work_dir=run, **QUICK)
    Path(f'{run}.py').unlink()
    again = config_for(data, 'detection', work_dir=run, **QUICK)
    assert Path(again.annotations) == folder and Path(again.classes).read_text() == 'cat\ndog\n'


def test_a_link_in_the_place_of_the_copy_is_not_written_through(tmp_path):
    from icconv_mm.app.runs.begin import begin
    from icconv_mm.app.runs.prepare import Training
    from icconv_mm.app.training.train import build_runner

    cfg = config_for(
        labelled.voc(tmp_path / 'data'), 'detection', work_dir=tmp_path / 'run', size=32, epochs=1, **QUICK
    )
    (tmp_path / 'theirs').write_text('theirs')
    (tmp_path / 'run' / 'run.py').symlink_to(tmp_path / 'theirs')
    build_runner(begin(cfg, purpose=Training()))
    assert (tmp_path / 'theirs').read_text() == 'theirs' and not (tmp_path / 'run' / 'run.py').is_symlink()
