"""Images and segmentation maps that lie anywhere, by a list."""

import json
import os

from mmseg.datasets import BaseSegDataset

from icconv_mm.errors import InputError, naming
from icconv_mm.registry import DATASETS


@DATASETS.register_module()
class ListedSegDataset(BaseSegDataset):
    """mmseg's dataset of the images and segmentation maps that a JSON file pairs, wherever they lie.

    Args:
        ann_file: A file with ``images``, each with ``id``, ``file_name`` (below ``data_prefix['img_path']``) and
            ``seg_map`` (below the folder of ``ann_file``), as ``tools/prepare_data.py`` writes it.
        kwargs: Arguments of ``BaseSegDataset``.

    Raises:
        InputError: The file is not such a list.
    """

    def load_data_list(self) -> list[dict]:
        """One entry for each image."""
        with naming(self.ann_file, OSError, ValueError, KeyError, TypeError), open(self.ann_file, 'rb') as file:
            images = json.load(file)['images']
            if not images:
                raise InputError('no images in the list')
            return [self._entry(image) for image in images]

    def _entry(self, image: dict) -> dict:
        folder = os.path.dirname(self.ann_file)
        return dict(
            img_path=os.path.join(self.data_prefix.get('img_path') or '', image['file_name']),
            seg_map_path=os.path.join(self.data_prefix.get('seg_map_path') or folder, image['seg_map']),
            img_id=image['id'],
            label_map=self.label_map,
            reduce_zero_label=self.reduce_zero_label,
            seg_fields=[],
        )
