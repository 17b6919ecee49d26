"""What :mod:`icconv_mm.annotations.convert` found, for the eye: a summary in lines, and a page of pictures."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from icconv_mm.annotations.converted import Prepared
from icconv_mm.annotations.dataset import Found, Picture
from icconv_mm.annotations.images_on_disk import IMAGE_FORMATS
from icconv_mm.annotations.polygons import class_map, mask_of
from icconv_mm.annotations.reading import fault_of
from icconv_mm.errors import printable
from icconv_mm.files import whole_file
from icconv_mm_runtime.drawing import Content, Mark, color_of, draw, encoded, tiles

_MOST = 20  # problems of one kind that are listed


def summary(found: Found, prepared: Sequence[Prepared]) -> list[str]:
    """Lines about a set: format, splits, classes with counts, sizes, then what is wrong with it, by file."""
    lines = [f'{found.place}: {found.format}, {len(found.pictures)} pictures']
    for task in prepared:
        splits = ', '.join(f'{split} {count}' for split, count in task.splits.items())
        lines.append(f'  {task.task}: {splits}')
        if task.task == 'semantic':
            counts = ', '.join(f'{name} {share:.1%}' for name, share in task.counts.items())
        else:
            counts = ', '.join(f'{name} {count:g}' for name, count in task.counts.items() if count)
        absent = [name for name, count in task.counts.items() if not count]
        lines.append(f'    {len(task.classes)} classes: {counts}')
        if absent:
            lines.append(f'    without any label: {", ".join(absent[:8])}{", ..." if len(absent) > 8 else ""}')
        if task.keypoints:
            lines.append(f'    {len(task.keypoints)} keypoints: {", ".join(task.keypoints)}')
        if len(task.boxes):
            sides = np.sqrt(task.boxes.prod(1)) * 100
            low, middle, high = np.percentile(sides, [5, 50, 95])
            lines.append(
                f'    sides of boxes in % of the longer side: {low:.1f} to {high:.1f}, half below {middle:.1f}'
            )
        lines += [f'    note: {note}' for note in task.notes]
    lines.append(f'  sizes: {sizes_of([tuple(size) for task in prepared for size in task.sizes.tolist()])}')
    if found.missing:
        lines.append(f'  {len(found.missing)} pictures are named and not there, the first: {found.missing[0]}')
    lines += problem_lines(found)
    return [printable(line) for line in lines]


def sizes_of(sizes: Sequence[tuple[int, int]]) -> str:
    """The most frequent sizes in words."""
    counts = Counter(sizes)
    shown = ', '.join(f'{int(w)} x {int(h)}' for (w, h), _ in counts.most_common(3))
    return shown + (f' and {len(counts) - 3} others' if len(counts) > 3 else '')


def problem_lines(found: Found, most: int = _MOST) -> list[str]:
    """What is wrong, by file; of many alike, the first ones and their number."""
    if not found.problems:
        return ['  nothing wrong was found']
    lines = [f'  wrong with {len(found.problems)} labels or files:']
    lines += [f'    {file}: {what}' for file, what in found.problems[:most]]
    if len(found.problems) > most:
        lines.append(f'    ... and {len(found.problems) - most} more')
    return lines


def draw_page(found: Found, prepared: Sequence[Prepared], path: Path, count: int = 12) -> Path:
    """A page of pictures with their labels drawn, spread evenly over the set."""
    pictures = sorted((p for p in found.pictures.values() if not p.problem), key=lambda p: p.path)
    chosen = [pictures[i] for i in np.linspace(0, len(pictures) - 1, min(count, len(pictures))).astype(int)]
    drawn = []
    for picture in chosen:
        try:
            drawn.append(_drawn(found, prepared, picture))
        except Exception as error:
            found.wrong(picture.path, f'is not on the page: {fault_of(error)}')
    if drawn:
        with whole_file(path) as file:
            file.write(encoded(tiles(drawn), path.suffix))
    return path


def _drawn(found: Found, prepared: Sequence[Prepared], picture: Picture) -> np.ndarray:
    with Image.open(picture.path, formats=IMAGE_FORMATS) as opened:
        image = np.asarray(ImageOps.exif_transpose(opened).convert('RGB'))
    by_task = {task.task: task for task in prepared}
    classes = next((t.classes for name, t in by_task.items() if name in ('detection', 'instance')), found.classes)
    marks = []
    for thing in picture.things or ():
        label = classes.index(thing.name) if thing.name in classes else 0
        mark = Mark(color_of(label), thing.name, skeleton=found.skeleton)
        if thing.box is not None:
            x, y, w, h = thing.box
            mark.box = [x, y, x + w, y + h]
        mark.mask = None if thing.outline is None else mask_of(thing.outline, picture.size)
        if thing.keypoints:
            points = np.array(thing.keypoints, dtype=float).reshape(-1, 3)
            mark.keypoints, mark.shown = points[:, :2], points[:, 2] > 0
        marks.append(mark)
    label_map, names = None, ()
    if picture.label_map is not None and 'semantic' in by_task:
        values = class_map(picture.label_map, None if picture.label_map.parts[-2:-1] == ('maps',) else picture.segments)
        label_map, names = values if values.ndim == 2 else None, by_task['semantic'].classes
    title = f'{picture.split}: {picture.path.name}' + (f' {picture.label}' if picture.label else '')
    content = Content(marks, label_map, names, title=title)
    return draw(image, content, longest=1200)
