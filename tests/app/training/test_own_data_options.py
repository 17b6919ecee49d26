"""Options of a training on images, and what follows from the machine."""

import labelled
import pytest

from icconv_mm.app.training.own_data import config_for
from icconv_mm.errors import InputError

QUICK = dict(backbone='ic_resnet18', pretrained='none', say=lambda line: None)


@pytest.mark.parametrize(('cores', 'workers'), [(1, 1), (2, 2), (64, 8)])
def test_images_are_loaded_by_as_many_processes_as_there_are_cores(tmp_path, cores, workers, monkeypatch):
    monkeypatch.setattr('os.sched_getaffinity', lambda process: range(cores), raising=False)
    cfg = config_for(labelled.voc(tmp_path / 'data'), 'detection', work_dir=tmp_path / 'run', **QUICK)
    loaders = (cfg[f'{phase}_dataloader'] for phase in ('train', 'val', 'test'))
    assert {loader.num_workers for loader in loaders} == {workers}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'classes': ['cat', 'dog', 'cat']}, 'classes: cat is named twice'),
        ({'ignore_index': [11]}, 'ignore_index: is of segmentation maps, and the task is detection'),
        ({'patience': 0}, 'patience must be a positive integer, got 0'),
    ],
)
def test_options_that_must_be_mistakes(options, message):
    with pytest.raises(InputError, match=message):
        config_for('data', 'detection', say=print, **options)
