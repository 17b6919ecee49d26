"""Decides whose keypoints are, in formats that write each point by itself or by name."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from icconv_mm.app.annotations.dataset import Dataset
from icconv_mm.datasets.reading import DatasetError
from icconv_mm_runtime.thresholds import KEYPOINT_SCORE, reaches

AnyObject = TypeVar('AnyObject')


class Point(NamedTuple):
    """A keypoint: its name, x and y in pixels, and COCO's visibility (1 hidden, 2 visible, 0 unlabelled)."""

    name: str
    x: float
    y: float
    visibility: int = 2


def keypoints_of_points(
    dataset: Dataset, points: Iterable[Point], names: Sequence[str], where: str | Path, what: str = ''
) -> list[float]:
    """Returns x, y and visibility of each name in one list; zeros for a name without a point.

    Args:
        dataset: Records a warning for a name with several labelled points, of which the last is taken.
        points: The points of one object.
        names: The keypoints of its class.
        where: File and entry of the object, for the warning.
        what: What the file calls the object, for the warning.
    """
    labelled = [point for point in points if point.visibility]
    for name, count in sorted(Counter(point.name for point in labelled).items()):
        if count > 1:
            dataset.warn(where, f'{what} has {count} points {name!r}: the last is taken'.lstrip())
    by_name = {point.name: point[1:] for point in labelled}
    return [float(value) for name in names for value in by_name.get(name, (0, 0, 0))]


def numbered(count: int) -> list[str]:
    """Returns names of keypoints that have none: ``'point_1'``, ..."""
    return [f'point_{k + 1}' for k in range(count)]


def predicted_keypoints(keypoints: Sequence[float]) -> list[float] | None:
    """Returns x, y and visibility of predicted keypoints with scores: 2 if they are shown, else 0; None if none is."""
    seen = reaches(keypoints[2::3], KEYPOINT_SCORE)
    triples = [2 * int(seen[k // 3]) if k % 3 == 2 else value for k, value in enumerate(keypoints)]
    return triples if seen.any() else None


def assign_points(
    dataset: Dataset,
    points: Mapping[str, Sequence[Point]],
    objects: Sequence[tuple[str, AnyObject]],
    where: str | Path,
    owner: str,
) -> Iterator[tuple[AnyObject | None, list[float]]]:
    """Yields objects of an image and their keypoints, with None for an object that has no more than points.

    Points that name their object belong to it. The others belong to the image's only object; where there is none, they
    are one, or one each in a dataset of one keypoint. If more than one object fits, or two points have one name and
    name no object, nobody knows whose they are: they are left out with a warning.

    Args:
        dataset: Has the names of the keypoints, and records the warnings.
        points: The points by the object that they name, ``''`` if none.
        objects: The names and the objects of the image.
        where: The image, for the warnings.
        owner: The field that names a point's object, for the warnings: ``'group_id'``.

    Raises:
        DatasetError: The image has only points of unknown objects: without them, it would seem to be empty.
    """
    for named, points_of_object in points.items():
        fitting = [annotation for name, annotation in objects if named in ('', name)]
        is_twice = not named and len({point.name for point in points_of_object}) < len(points_of_object)
        if is_twice and not objects and len(dataset.keypoints) == 1:
            yield from (
                (None, keypoints_of_points(dataset, [point], dataset.keypoints, where)) for point in points_of_object
            )
        elif len(fitting) > 1 or is_twice:
            which = f'with the {owner} {named} of {len(fitting)} objects' if named else f'without a {owner}'
            what = f'{len(points_of_object)} points {which}, which says whose they are'
            if not objects:
                raise DatasetError(what)
            dataset.warn(where, what, is_left_out=True)
        else:
            keypoints = keypoints_of_points(
                dataset, points_of_object, dataset.keypoints, where, f'{owner} {named}' if named else ''
            )
            yield (fitting[0] if fitting else None), keypoints
