#!/usr/bin/env bash
# label-studio-sdk 2.1.2, pycocotools 2.0.11.
# Good guess: an image that one person annotated and a second one corrected later, marked as ground truth, is exported
# with the correction: the converter sorts annotations by date, newest first.
# What happens: YOLO writes a file of labels for each annotation under one name, so the last one written stays: the
# oldest. COCO lists the image twice under one file_name, with two ids and both sets of boxes. Neither warns.
# Who is hurt: projects with an overlap above 1 or with second annotations. A YOLO training gets the boxes that someone
# corrected, a COCO training gets all images twice, with both versions, and a random split puts one image on both sides.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'label-studio-sdk==2.1.2' 'pycocotools==2.0.11' 'numpy==2.2.6' 'pillow==12.3.0'
cat > "$folder/try.py" <<'P'
import contextlib
import glob
import io
import json
import os
import sys
from importlib.metadata import version

from label_studio_sdk.converter import Converter
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

os.chdir(sys.argv[1])
print(', '.join(f'{name} {version(name)}' for name in ('label-studio-sdk', 'pycocotools', 'numpy')))
os.makedirs('server/upload/1')
CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="box" toName="image"><Label value="zebra"/></RectangleLabels></View>"""
DRAFT, CORRECTION = [60, 60, 20, 20], [10, 10, 40, 30]  # x, y, width, height in an image of 100 x 100


def annotation(number, day, box):
    value = dict(zip(('x', 'y', 'width', 'height'), box), rotation=0, rectanglelabels=['zebra'])
    region = dict(id=f'r{number}', from_name='box', to_name='image', type='rectanglelabels', value=value)
    region |= dict(original_width=100, original_height=100, image_rotation=0)
    made = dict(id=number, completed_by=dict(id=number, email=f'{number}@example.com'), result=[region])
    return made | dict(was_cancelled=False, ground_truth=day > 1, created_at=f'2026-01-0{day}T00:00:00Z')


def export(order):
    tasks = []
    for task in range(2):
        Image.new('RGB', (100, 100)).save(f'server/upload/1/image{task}.png')
        made = [annotation(10 * task, 1, DRAFT), annotation(10 * task + 1, 2, CORRECTION)]
        tasks.append(dict(id=task + 1, data=dict(image=f'/data/upload/1/image{task}.png'), annotations=made[::order]))
    with open('server/tasks.json', 'w') as file:
        json.dump(tasks, file)
    converter = Converter(CONFIG, 'server', upload_dir='server/upload')
    for kind in 'YOLO', 'COCO':
        converter.convert('server/tasks.json', f'{kind}{order}', kind, is_dir=False)
    boxes = []
    for path in sorted(glob.glob(f'YOLO{order}/labels/*.txt')):
        with open(path) as file:
            for line in file.read().splitlines():
                x, y, w, h = (100 * float(number) for number in line.split()[1:])
                boxes.append([round(side) for side in (x - w / 2, y - h / 2, w, h)])
    with open(f'COCO{order}/result.json') as file:
        result = json.load(file)
    for annotation in result['annotations']:
        annotation['id'] += 1  # COCOeval never counts an annotation of id 0 as found, which is another story
    with open(f'{order}.json', 'w') as file:
        json.dump(result, file)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(f'{order}.json')
    return boxes, coco


print(f'2 images, one object each: first {DRAFT}, a day later corrected to {CORRECTION}')
good = True
for order, text in (1, 'older first'), (-1, 'newer first'):
    boxes, coco = export(order)
    print(f'tasks.json with the {text}:')
    print('  YOLO: boxes', boxes)
    predictions = []
    for number, image in coco.imgs.items():
        boxes_of_image = [[round(side) for side in one['bbox']] for one in coco.imgToAnns[number]]
        print(f"  COCO: image {number}, {os.path.basename(image['file_name'])}, boxes {boxes_of_image}")
        predictions.append(dict(image_id=number, category_id=coco.getCatIds()[0], bbox=CORRECTION, score=0.9))
    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(coco, coco.loadRes(predictions), 'bbox')
        run.evaluate()
        run.accumulate()
        run.summarize()
    print(f'  COCO: a detector that finds the corrected boxes has a recall of {run.stats[8]:.2f} (1.00 is perfect)')
    names = [image['file_name'] for image in coco.imgs.values()]
    good &= boxes == [DRAFT, DRAFT] and len(names) == 4 and len(set(names)) == 2 and round(run.stats[8], 2) == 0.5
sys.exit(not good)
P
"$python" -W ignore "$folder/try.py" "$folder"
