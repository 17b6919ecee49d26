"""Reads SLEAP's projects ``.slp`` and packages ``.pkg.slp``, by sleap-io (the extra ``sleap``)."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icconv_mm.app.annotations.dataset import Annotation, Dataset
from icconv_mm.app.annotations.images_on_disk import Files, followed, located
from icconv_mm.app.annotations.segmentations import box_of_keypoints
from icconv_mm.errors import MissingLibraryError
from icconv_mm.files import atomic_write
from icconv_mm.versions import is_installed


def sleap_sources(files: Files) -> Iterator[tuple]:
    """Yields SLEAP's files; a package stands for the project of its name.

    Raises:
        MissingLibraryError: The user named such a file, and sleap-io is not installed.
    """
    paths = files.labels('.slp')
    if paths and not is_installed('sleap_io'):
        what = f"{paths[0]}: needs sleap-io, which is not installed: pip install 'icconv_mm[sleap]'"
        if files.only is not None:
            raise MissingLibraryError(what)
        files.warnings.warn(paths[0], f'{what.removeprefix(f"{paths[0]}: ")}: not read')
        return
    packages = {path.name.removesuffix('.pkg.slp') for path in paths if path.name.endswith('.pkg.slp')}
    for path in paths:
        if path.name.endswith('.pkg.slp') or path.stem not in packages:
            yield 'SLEAP', path, partial(_read_labels, path)


def _read_labels(path: Path) -> Dataset:
    """Reads the instances that people annotated; frames of videos are written to ``FILE.frames``."""
    import sleap_io

    dataset, labels = Dataset('SLEAP', path), sleap_io.load_slp(str(path))
    names = {}
    for number, skeleton in enumerate(labels.skeletons):
        name = str(skeleton.name or 'animal') if len(labels.skeletons) > 1 else 'animal'
        names[id(skeleton)] = dataset.add_class(name if name not in dataset.classes else f'{name}_{number + 1}')
        nodes = list(map(str, skeleton.node_names))
        dataset.set_keypoints(names[id(skeleton)], nodes, [tuple(edge) for edge in skeleton.edge_inds])
    if len(labels.skeletons) == 1 and (pairs := labels.skeletons[0].symmetry_inds):
        swap = {one: other for pair in pairs for one, other in (tuple(pair), tuple(pair)[::-1])}
        dataset.flip_indices = [swap.get(i, i) for i in range(len(dataset.keypoints))]
    unread, hidden = Counter(), 0
    for frame in labels.labeled_frames:
        where = f'{path}: frame {frame.frame_idx} of video {labels.videos.index(frame.video)}'
        if not frame.user_instances and not getattr(frame, 'is_negative', False):  # sleap-io has the mark since 0.7
            unread['only predicted instances' if frame.instances else 'no instance and no mark as negative'] += 1
            continue
        location = _image_of(frame, labels.videos.index(frame.video), path)
        if location is None:
            dataset.missing.append(where)
            continue
        image = dataset.image(location)
        image.annotations = image.annotations or []
        for i, instance in enumerate(frame.user_instances):
            points = np.column_stack([instance.numpy(invisible_as_nan=False), 1 + instance.points['visible']])
            points[~np.isfinite(points).all(1)] = 0
            if not points.any():
                hidden += 1
                continue
            keypoints = [float(value) for value in points.ravel()]
            box, name = box_of_keypoints(keypoints, image.size), names[id(instance.skeleton)]
            image.annotations.append(Annotation(name, box, keypoints=keypoints, location=f'{where}: instance {i + 1}'))
    if hidden:
        dataset.warn(path, f'{hidden} instances have no visible point: left out')
    for what, count in unread.items():
        dataset.warn(path, f'{count} frames have {what}: not read')
    return dataset


def _image_of(frame: Any, video: int, path: Path) -> Path | None:
    """Returns the image file of a frame, written first if it is inside a video or a package; None without one."""
    filename = frame.video.filename
    if isinstance(filename, list):  # a video of image files
        return located(str(filename[frame.frame_idx]), [path.parent])
    location = followed(path).with_name(f'{path.name}.frames') / f'{video}_{frame.frame_idx:06}.png'
    if not location.is_file():
        try:
            pixels = frame.image
        except Exception:  # whatever a decoder raises, the video is not there
            return None
        with atomic_write(location) as file:
            Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, 'PNG')
    return location
