"""The summary of a run says which layers a CPU got in place of the config's."""

from types import SimpleNamespace

import pytest
from torch import nn

pytest.importorskip('mmengine')

from icconv_mm.app.training.hooks.logs import OpeningHook
from icconv_mm.layers import DeformConv2d, ModulatedDeformConv2d


@pytest.mark.parametrize('count', [0, 2])
def test_deformable_convolutions_are_counted(count):
    lines = []
    layers = [DeformConv2d(4, 4, 3), ModulatedDeformConv2d(4, 4, 3)][:count]
    runner = SimpleNamespace(
        model=nn.Sequential(nn.Conv2d(4, 4, 3), *layers),
        test_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=range(7))),
        logger=SimpleNamespace(info=lines.append),
        work_dir='runs',
        seed=1,
    )
    OpeningHook('a config', ['ResNet']).before_test(runner)
    (said,) = lines
    assert '7 images to test' in said
    assert ("2 deformable convolutions are this package's" in said) == bool(count)
