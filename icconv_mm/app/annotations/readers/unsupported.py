"""Recognises annotations that are not read, and says what converts them or what is missing."""

import re
from collections import Counter
from pathlib import Path

from icconv_mm.app.annotations.images_on_disk import Files
from icconv_mm.app.annotations.readers.seg_maps import kind_of_map
from icconv_mm.app.annotations.readers.yolo import has_yolo_labels
from icconv_mm.datasets.image_files import opened
from icconv_mm.datasets.reading import DatasetError, head
from icconv_mm_runtime.images import IMAGE_SUFFIXES

_OF_IMAGES = re.compile(
    r'(.*[^a-z])?((jpeg)?images?|imgs?|originals?|photos?|pictures?|frames|rgb|inputs?|leftimg8bit)'
)
_OF_MAPS = re.compile(
    r'(.*[^a-z])?(masks?|annotations?|labels?|labs?|ground[ _-]?truths?|gts?|gtfine|segmentations?|segmaps?|targets?|'
    r'segmentation(class|object)|.+annot)'
)
_LISTED = 8  # colours in a message
# The marks of a JSON file, by tool, and what converts it.
_JSON = (
    (('_via_img_metadata',), 'VIA', 'export it from VIA as COCO'),
    (('file_attributes', 'regions'), 'VIA', 'export it from VIA as COCO'),
    (('"ISAT"',), 'ISAT', "export it from ISAT as COCO (its menu 'Tools', 'Convert')"),
    (('data_row',), 'Labelbox', 'convert it to COCO first'),
    (('darwin', 'annotations'), 'Darwin', 'convert it: darwin convert coco FILES FOLDER'),
    (('dm_format_version',), 'Datumaro', 'convert it: datum convert -if datumaro -f coco'),
    (('classTitle', 'objects'), 'Supervisely', 'convert it by supervisely.convert.to_coco'),
)


def refuse_unsupported(files: Files) -> None:
    """Raises DatasetError if there are annotations in a form that is not read; called if no other was found."""
    for path in files.labels('.json', '.ndjson'):
        for words, tool, how in _JSON:
            if all(word in head(path) for word in words):
                raise DatasetError(f'{path}: is of {tool}, which is not read: {how}')
    for path in files.labels('.mat'):
        if path.parent.name == 'Annotations_Part':
            raise DatasetError(f'{path}: is of Pascal-part, in MATLAB, which is not read: convert it to COCO first')
    for path in files.labels('.csv'):
        if all(word in head(path) for word in ('ImageID', 'LabelName')):
            raise DatasetError(f'{path}: is of Open Images, which is not read: datum convert -if open_images -f coco')
    for folder, names in files.by_folder.items():
        if re.fullmatch('label_[0-9]', folder.name) and any(name.endswith('.txt') for name in names):
            raise DatasetError(f'{folder}: is of KITTI, which is not read: datum convert -if kitti -f coco')
    if has_yolo_labels(files):
        what = 'no file names the classes of the text files, which are as those of YOLO'
        raise DatasetError(f'{files.root}: {what}: add a classes.txt with a name in each line, or a data.yaml')
    _refuse_maps(files)


def _refuse_maps(files: Files) -> None:
    """Raises DatasetError if a folder of images stands beside one of segmentation maps, which no reader paired."""
    parts = {path: set(path.relative_to(files.root).parts) for path in files.by_folder if files.has_images(path)}
    of_images = [folder for folder, folder_parts in parts.items() if _has(_OF_IMAGES, folder_parts)]
    for maps in [
        folder for folder, folder_parts in parts.items() if _has(_OF_MAPS, folder_parts)
    ]:  # few, of many folders of classes
        for images in of_images:
            parts_of_maps, other = parts[maps] - parts[images], parts[images] - parts[maps]
            if _has(_OF_MAPS, parts_of_maps) and _has(_OF_IMAGES, other) and not _has(_OF_MAPS, other):
                what = f'segmentation maps of {images}, which are not read'
                raise DatasetError(f'{maps}: {what}: {_reason(maps, files)}')


def _has(pattern: re.Pattern, parts: set[str]) -> bool:
    return any(pattern.fullmatch(part.lower()) for part in parts)


def _reason(maps: Path, files: Files) -> str:
    path = next(maps / name for name in files.by_folder[maps] if name.lower().endswith(IMAGE_SUFFIXES))
    kind = kind_of_map(path)
    if kind == 'colours':
        with opened(path) as image:
            rgb = image.convert('RGB')
            colors = Counter({color: count for count, color in rgb.getcolors(rgb.width * rgb.height)})
        shown = ', '.join(str(color) for color, _ in colors.most_common(_LISTED))
        return f'a table class_dict.csv (name,r,g,b in each line) must name their colours; {path.name} has {shown}'
    if kind == 'JPEG':
        return 'a JPEG does not keep labels or colours, unless it is black and white: save them as PNG'
    if kind == 'other':
        return f'{path.name} has too many colours for a map of classes'
    return 'no map has the name of an image'
