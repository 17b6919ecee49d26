"""Images that the mean and std of a model are not for end a run with a message."""

from types import SimpleNamespace

import pytest
import torch

from icconv_mm.app.training.hooks.checkpoint_checks import ImageCheckHook
from icconv_mm.errors import InputError


def check(images, mean=(123.0, 116.0, 103.0), batch_idx=0):
    preprocessor = SimpleNamespace(mean=torch.tensor(mean).reshape(-1, 1, 1))
    runner = SimpleNamespace(model=SimpleNamespace(data_preprocessor=preprocessor))
    samples = [SimpleNamespace(img_path=f'{i}.jpg') for i in range(len(images))]
    ImageCheckHook().before_train_iter(runner, batch_idx, {'inputs': images, 'data_samples': samples})


def test_good_images():
    black = torch.zeros(3, 4, 4)
    for images in (
        [torch.full((3, 4, 4), 200, dtype=torch.uint8), torch.ones(3, 9, 4, dtype=torch.uint8)],
        torch.rand(2, 3, 4, 4) * 255,
        [black, black],
        [[black, black]],  # copies at several scales
        [torch.zeros(2)],
    ):
        check(images)
    check([torch.rand(3, 4, 4)], mean=(0.5, 0.4, 0.3))
    check([torch.rand(4, 4, 4)], mean=(0.5,))
    ImageCheckHook().before_train_iter(SimpleNamespace(model=torch.nn.Identity()), 0, {'inputs': [black]})


def test_other_channels():
    images = [torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, 4, dtype=torch.uint8)]
    for batch_idx in (0, 7):
        with pytest.raises(InputError, match=r'^1\.jpg: 4 channels, but model\.data_preprocessor\.mean has 3: '):
            check(images, batch_idx=batch_idx)


def test_images_of_0_to_1():
    with pytest.raises(InputError, match=r'^0\.jpg: pixels up to 1, but .*mean is up to 123: '):
        check([torch.ones(3, 4, 4), torch.zeros(3, 4, 4)])
