import re

import pytest
from mmengine.config import Config

from icconv_mm.tasks.multitask.checks import check_model
from icconv_tools.demo.own_data import write_own_data_config


def _own(folder, data, **changes):
    """The file that the demo writes, filled in for the tiny dataset."""
    text = write_own_data_config(folder).read_text().replace('path/to/your/data/', f'{data}/')
    text = text.replace("classes = ('person', 'ball') ", "classes = ('person', 'ball', 'box', 'cone', 'star', 'ring') ")
    text = text.replace(
        "'background', 'person', 'ball')", "'background', 'person', 'ball', 'box', 'cone', 'star', 'ring')"
    )
    for name, value in changes.items():
        text = re.sub(rf'^{name} = .*$', f'{name} = {value}', text, flags=re.MULTILINE)
    path = folder / 'filled.py'
    path.write_text(text)
    return Config.fromfile(path)


@pytest.mark.parametrize(
    ('changes', 'kept'),
    [
        ({}, ['instance', 'semantic', 'pose']),
        ({'people': None}, ['instance', 'semantic']),
        ({'instances': None, 'label_maps': None}, ['pose']),
    ],
)
def test_own_data_config(data, tmp_path, changes, kept):
    """Every task that has labels is trained and judged, on what the file names; the others are left out."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    pytest.importorskip('mmpose')
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import DATASETS, METRICS, MODELS, init_default_scope

    cfg = _own(tmp_path, data, **changes)
    init_default_scope('mmengine')
    model = MODELS.build(cfg.model)
    train, val = (DATASETS.build(cfg[f'{phase}_dataloader'].dataset) for phase in ('train', 'val'))
    assert list(model.tasks) == list(train.metainfo) == list(val.metainfo) == kept and len(train) == 8
    check_model(model, train, 'train', training=True)
    batch = pseudo_collate([train[i] for i in range(2)])
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    assert {key.split('.')[0] for key in losses} == set(kept)
    assert [METRICS.build(metric).task for metric in cfg.val_evaluator] == kept


def test_own_data_config_is_not_overwritten(tmp_path):
    path = write_own_data_config(tmp_path)
    path.write_text('filled in')
    assert write_own_data_config(tmp_path).read_text() == 'filled in'
