"""What of a test pipeline an exported file can say to its runtime, and what is refused."""

import pytest
from torch import nn

from icconv_mm.app.export.preparation import batch_of, steps_of
from icconv_mm.errors import InputError


def test_scalars_are_those_of_the_transforms():
    transforms = [
        dict(type='LoadImageFromFile', backend_args=None, color_type='color'),
        dict(type='Resize', scale=224),
        dict(type='mmdet.Pad', size=(256, 256), pad_val=114.0),
        dict(type='mmdet.PackDetInputs'),
    ]
    resize, pad = steps_of(transforms, 'test')
    assert resize == {'op': 'resize', 'scale': [224, 224], 'keep_ratio': False}
    assert pad == {'op': 'pad', 'size': [256, 256], 'value': [114.0] * 3}


@pytest.mark.parametrize(
    ('option', 'value'),
    [('color_type', 'color_ignore_orientation'), ('to_float32', True), ('imdecode_backend', 'pillow')],
)
def test_images_that_are_read_in_another_way(option, value):
    with pytest.raises(InputError, match=rf"test\.0: LoadImage with \{{'{option}': {value!r}\}} cannot be exported"):
        steps_of([{'type': 'mmpose.LoadImage', option: value}], 'test')


def test_one_size_for_several_test_scales():
    steps = steps_of([dict(type='icconv_mm.MultiScaleResize', input_size=(128, 128), scales=(2, 1))], 'test')
    model = nn.Module()
    model.data_preprocessor = nn.Identity()
    with pytest.raises(InputError, match='fixed: inputs of several test scales differ in size'):
        batch_of(model, steps, (512, 704), 'model.data_preprocessor')
    assert batch_of(model, steps, None, 'model.data_preprocessor')['fixed'] is None
