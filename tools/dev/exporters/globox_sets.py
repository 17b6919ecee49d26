"""globox: what its sets of boxes write."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import globox
import ours

OUT = Path(sys.argv[1]).absolute()
plain = [replace(item, crowd=False) for item in ours.BOXES]
annotations = globox.AnnotationSet(
    globox.Annotation(
        image,
        ours.SIZES[image],
        [
            globox.BoundingBox(label=item.name, xmin=x, ymin=y, xmax=x + w, ymax=y + h)
            for item in ours.objects_of(image, plain)
            for x, y, w, h in [item.box]
        ],
    )
    for image in ours.SIZES
)


def start(name, images='.'):
    folder = OUT / name / 'data'
    ours.draw(folder / images, objects=plain)
    os.chdir(folder)
    return folder.parent


folder = start('coco', 'images')
annotations.save_coco('annotations.json', auto_ids=True)
ours.write_truth(folder, plain, 'COCO', classes=sorted(ours.CLASSES), changes=['sorts the classes'])

folder = start('voc', 'images')
annotations.save_pascal_voc('annotations')
more = dict(classes=sorted(ours.CLASSES))
ours.write_truth(folder, plain, 'Pascal VOC', decided=['boxes count pixels from 0'], **more)

folder = start('cvat', 'images')
annotations.save_cvat('annotations.xml')
ours.write_truth(folder, plain, 'CVAT', changes=['has no list of labels'])

folder = start('labelme')
annotations.save_labelme('.')
ours.write_truth(folder, plain, "labelme's JSON", classes=sorted(ours.CLASSES))

folder = start('yolo', 'images')
os.mkdir('labels')
annotations.save_yolo_v5('labels', label_to_id={name: i for i, name in enumerate(ours.CLASSES)})
Path('classes.txt').write_text('\n'.join(ours.CLASSES) + '\n')
ours.write_truth(folder, plain, 'YOLO', changes=['writes no names: classes.txt is ours'])
