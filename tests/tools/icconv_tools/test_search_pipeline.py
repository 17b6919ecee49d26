"""The one-command search on a handful of images: supernet, search, retraining, comparison, and going on."""

import copy
import json

import pytest
import torch
from mmengine.config import Config

from icconv_mm.backbones import ICResNet
from icconv_mm.errors import InputError
from icconv_mm.patterns import read_patterns
from icconv_tools.miniature import MiniatureOptions, ensure_miniature
from icconv_tools.search_pipeline import SearchPipeline

pytest.importorskip('mmseg')


@pytest.fixture(scope='module')
def config(repo, tmp_path_factory) -> Config:
    data_root = tmp_path_factory.mktemp('data') / 'miniature'
    ensure_miniature(data_root, MiniatureOptions(train=4, val=2, size=64))
    config = Config.fromfile(repo / 'configs/semantic_segmentation/fpn_ic-r18-supernet_miniature.py')
    config.model.backbone.update(base_channels=8, supernet_d_max=2)
    config.model.neck.in_channels = [8, 16, 32, 64]
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(data_root)
    config.val_dataloader.dataset.pipeline[1].scale = (64, 64)
    return config


@pytest.mark.slow
def test_pipeline_goes_on_where_it_stopped_and_reports(config, tmp_path, capsys):
    shown = []
    variants = ('dense', 'analytic', 'searched', 'inherited')

    def pipeline(**changes) -> SearchPipeline:
        options = {'seeds': [3], 'iters': 2, 'variants': variants, 'show': shown.append}
        return SearchPipeline(config, tmp_path, **options | changes)

    assert pipeline().run(limit=2) is None  # the supernet and the first variant
    finished = [tmp_path / name / 'result.json' for name in ('supernet', 'dense_seed3')]
    written = [path.stat().st_mtime_ns for path in finished]
    assert not (tmp_path / 'searched_seed3').exists()

    report = pipeline().run()
    assert [path.stat().st_mtime_ns for path in finished] == written  # not trained again
    assert [row['variant'] for row in report['rows']] == list(variants)
    assert all(0 <= row['mean'] <= 100 and row['values'] == [row['mean']] for row in report['rows'])
    assert json.loads((tmp_path / 'report.json').read_text()) == report
    assert (tmp_path / 'report.md').read_text().count('\n') == 2 + len(variants)
    headings = [str(section.title) for section in shown]
    assert (
        'training 2 of 5: dense_seed3 (finished before)' in headings and 'Dilations per layer of backbone' in headings
    )
    assert headings[-1] == 'mIoU after 2 iterations'
    assert 'Dilations per layer' not in capsys.readouterr().out  # a library prints nothing by itself

    assert read_patterns(tmp_path / 'pattern.json')[-1].out_channels == 64
    inherited = torch.load(tmp_path / 'inherited.pth', weights_only=True)['state_dict']
    backbone = {k.removeprefix('backbone.'): v for k, v in inherited.items() if k.startswith('backbone.')}
    network = ICResNet(
        18, base_channels=8, stem_channels=backbone['conv1.weight'].shape[0], pattern=tmp_path / 'inherited.json'
    )
    network.load_state_dict(backbone, strict=True)

    assert next(pipeline(iters=3).stages()).result() is None  # another budget is another experiment


@pytest.mark.slow
def test_a_training_is_not_lost_to_a_metric_that_does_not_exist(config, tmp_path):
    def pipeline(metric: str) -> SearchPipeline:
        return SearchPipeline(
            config, tmp_path, seeds=[3], iters=2, variants=['dense'], metric=metric, show=lambda _: None
        )

    wrong = pytest.raises(InputError, match=r"no metric 'mIuO'; the evaluator gives .*mIoU")
    with wrong:
        pipeline('mIuO').run()
    written = (tmp_path / 'supernet/result.json').stat().st_mtime_ns
    with wrong:  # the next call does not go on with it either
        pipeline('mIuO').run()
    assert not (tmp_path / 'dense_seed3').exists()
    assert pipeline('mIoU').run()['metric'] == 'mIoU'
    assert (tmp_path / 'supernet/result.json').stat().st_mtime_ns == written


def test_a_config_without_supernet_and_unknown_variants_are_refused(config, tmp_path):
    with pytest.raises(ValueError, match='no variant best; there are: dense, analytic'):
        SearchPipeline(config, tmp_path, variants=['best'])
    with pytest.raises(ValueError, match='at least one seed'):
        SearchPipeline(config, tmp_path, seeds=[])
    with pytest.raises(ValueError, match='iters: a training needs 1 or more, got 0'):
        SearchPipeline(config, tmp_path, iters=0)
    dense = copy.deepcopy(config)
    dense.model.backbone.supernet_d_max = None
    with pytest.raises(ValueError, match='supernet_d_max is not set'):
        SearchPipeline(dense, tmp_path)
    epochs = copy.deepcopy(config)
    epochs.train_cfg = dict(by_epoch=True, max_epochs=3)
    with pytest.raises(InputError, match='counts its training in epochs'):
        SearchPipeline(epochs, tmp_path)
