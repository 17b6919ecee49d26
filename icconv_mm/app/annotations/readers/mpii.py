"""Reads MPII's list of people with their joints."""

from pathlib import Path
from typing import Any

from icconv_mm.app.annotations.dataset import Annotation, Dataset
from icconv_mm.app.annotations.images_on_disk import Files, split_of
from icconv_mm.app.annotations.segmentations import box_of_keypoints
from icconv_mm.datasets.reading import DatasetError, as_number, read_json
from icconv_mm.errors import short

_MPII = (
    *('right_ankle', 'right_knee', 'right_hip', 'left_hip', 'left_knee', 'left_ankle', 'pelvis', 'thorax'),
    *('upper_neck', 'head_top', 'right_wrist', 'right_elbow', 'right_shoulder', 'left_shoulder', 'left_elbow'),
    'left_wrist',
)


def read_mpii(dataset: Dataset, path: Path, files: Files) -> None:
    """Reads MPII's list of people with their joints; boxes are computed from the visible joints."""
    dataset.keypoints, person, split = list(_MPII), dataset.add_class('person'), split_of(path.name)
    people = read_json(path)
    names = [entry.get('image') if isinstance(entry, dict) else None for entry in people]
    locations = files.images(filter(_is_name, names), path.parent, path.parent / 'images')
    for i, (entry, name) in enumerate(zip(people, names)):
        where = f'{path}: [{i}]'
        with dataset.reading(where, locations.get(name) if _is_name(name) else None, split):
            if not _is_name(name):
                raise DatasetError(f'"image" is {short(name)}, expected the name of a file')
            joints, seen = entry.get('joints'), entry.get('joints_vis')
            if not (isinstance(joints, list) and isinstance(seen, list) and len(joints) == len(seen) == len(_MPII)):
                raise DatasetError(f'expected joints and joints_vis of {len(_MPII)} keypoints')
            if not all(isinstance(point, list) and len(point) == 2 for point in joints):
                raise DatasetError(f'"joints" is {short(joints)}, expected x and y of each')
            points = [[as_number(value, '"joints"') for value in point] for point in joints]
            if (location := locations.get(name)) is None:
                dataset.missing.append(f'{where}: {name}')
                continue
            image = dataset.image(location, split)
            keypoints = [value for (x, y), v in zip(points, seen) for value in ((x, y, 2) if v else (0, 0, 0))]
            image.annotations = image.annotations or []
            if (box := box_of_keypoints(keypoints, image.size)) is None:
                dataset.warn(where, 'no joint is visible', is_left_out=True)
            else:
                image.annotations.append(Annotation(person, box, keypoints=keypoints, location=where))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
