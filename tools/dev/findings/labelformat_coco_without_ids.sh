#!/usr/bin/env bash
# labelformat 0.1.17, pycocotools 2.0.11.
# Good guess: a COCO file that labelformat reads and writes again is a COCO file: pycocotools opens it.
# What happens: the output has annotations without id, and boxes have neither area nor iscrowd. The ids of the input are
# gone, and pycocotools raises KeyError: 'id' while it builds its index. labelformat's own reader never misses them.
# Who is hurt: whoever converts any format to COCO for something that uses pycocotools, as most training and evaluation
# of detectors does. Adding ids is not enough: COCOeval then asks for the rest.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'labelformat==0.1.17' 'pycocotools==2.0.11' 'numpy==2.4.6'
cat > "$folder/try.py" <<'P'
import contextlib
import copy
import io
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

from labelformat import formats
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

os.chdir(sys.argv[1])
print(', '.join(f'{name} {version(name)}' for name in ('labelformat', 'pycocotools', 'numpy')))
box = dict(id=7, image_id=1, category_id=1, bbox=[10, 10, 30, 20], area=600, iscrowd=0)
source = dict(
    images=[dict(id=1, file_name='one.jpg', width=100, height=80)],
    categories=[dict(id=1, name='zebra')],
    annotations=[box | dict(segmentation=[[10, 10, 40, 10, 40, 30, 10, 30]])],
)
Path('source.json').write_text(json.dumps(source))
raised = {}


def attempt(name, content):
    """Opens a COCO file and evaluates its own boxes with it."""
    Path('try.json').write_text(json.dumps(content))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO('try.json')
            found = dict(image_id=1, category_id=1, bbox=[10, 10, 30, 20], score=0.9)
            run = COCOeval(coco, coco.loadRes([found]), 'bbox')
            run.evaluate()
            run.accumulate()
            run.summarize()
        raised[name] = f'AP {run.stats[0]:.2f}'
    except KeyError as error:
        raised[name] = f'KeyError: {error}'
    print(f"{name}: keys {sorted(content['annotations'][0])}, pycocotools: {raised[name]}")


attempt('source', source)
for task in 'ObjectDetection', 'InstanceSegmentation':
    given = getattr(formats, f'COCO{task}Input')(Path('source.json'))
    getattr(formats, f'COCO{task}Output')(Path('output.json')).save(given)
    output = json.loads(Path('output.json').read_text())
    attempt(task, output)
    read = list(getattr(formats, f'COCO{task}Input')(Path('output.json')).get_labels())
    print(f'  labelformat reads {len(read[0].objects)} object of it')
    numbered = copy.deepcopy(output)
    for number, annotation in enumerate(numbered['annotations'], 1):
        annotation['id'] = number
    attempt(f'{task} with ids', numbered)
sys.exit(
    raised
    != {
        'source': 'AP 1.00',
        'ObjectDetection': "KeyError: 'id'",
        'ObjectDetection with ids': "KeyError: 'iscrowd'",
        'InstanceSegmentation': "KeyError: 'id'",
        'InstanceSegmentation with ids': "KeyError: 'area'",
    }
)
P
"$python" -W ignore "$folder/try.py" "$folder"
