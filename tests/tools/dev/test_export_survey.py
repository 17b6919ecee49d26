"""The survey makes recipes small without making them others."""

import pytest
from pages import REPO
from skips import EXPORTS

pytest.importorskip('mmseg')
if not EXPORTS:
    pytest.skip('this torch is too old for exports', allow_module_level=True)

from export_survey import make_small, short_backbones
from icconv_mm import apis
from icconv_mm.app.runs.begin import begin
from icconv_mm.app.runs.prepare import Predicting
from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet


@pytest.mark.parametrize('name', ['fpn_ic-r18_miniature', 'fpn_ic-r18-supernet_miniature'])
def test_a_small_recipe_has_a_pattern_only_where_the_recipe_has(name):
    run = apis.load_run(REPO / f'configs/semantic_segmentation/{name}.py')
    had = run.cfg.model.backbone.pattern is not None
    make_small(run, (64, 64))
    assert run.cfg.model.backbone.pattern == ('geometric_d4' if had else None)
    begin(run, purpose=Predicting())
    run.build_model()


def test_backbones_are_short_only_within():
    kinds = ResNet, ICResNet, PyConvResNet
    before = [kind.arch_settings for kind in kinds]
    with short_backbones():
        assert {blocks for kind in kinds for _, blocks in kind.arch_settings.values()} == {(1, 1, 1, 1)}
    assert [kind.arch_settings for kind in kinds] == before
