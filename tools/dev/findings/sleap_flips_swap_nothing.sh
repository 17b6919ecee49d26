#!/usr/bin/env bash
# sleap-io 0.9.5.
# Good guess: a skeleton that knows its symmetries (left ear, right ear) is exported for Ultralytics with a flip_idx
# that swaps them: [0, 2, 1] for nose, left ear and right ear, as the skeleton's own get_flipped_node_inds() says.
# What happens: save_ultralytics writes flip_idx [0, 1, 2], whatever the symmetries. Without flip_idx Ultralytics would
# warn and flip nothing. With this one it flips half of the training images (fliplr 0.5) and keeps the names: what
# was the left ear looks like a right ear in them, and is still called left.
# Who is hurt: whoever trains a pose model on the export. It learns left and right as a coin toss, without a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'sleap-io==0.9.5' 'numpy==2.4.6' 'pillow==12.3.0'
cat > "$folder/try.py" <<'P'
import os
import sys
from importlib.metadata import version

import numpy as np
import sleap_io as sio
import yaml
from PIL import Image

os.chdir(sys.argv[1])
print('sleap-io', version('sleap-io'))
cases = {  # nodes, symmetric pairs
    'two ears': (['nose', 'left_ear', 'right_ear'], [('left_ear', 'right_ear')]),
    'no pairs': (['nose', 'back', 'tail'], []),
    'ears and eyes': (['ear_l', 'eye_l', 'nose', 'eye_r', 'ear_r'], [('ear_l', 'ear_r'), ('eye_l', 'eye_r')]),
}
same = []
for name, (nodes, pairs) in cases.items():
    skeleton = sio.Skeleton(nodes, [(nodes[0], other) for other in nodes[1:]], pairs)
    frames = []
    for number in range(2):
        Image.new('RGB', (80, 60)).save(f'{number}.png')
        points = np.array([(10.0 + 9 * i, 20.0 + 5 * i) for i in range(len(nodes))])
        video = sio.Video.from_filename([f'{number}.png'])
        instance = sio.Instance.from_numpy(points, skeleton=skeleton)
        frames.append(sio.LabeledFrame(video=video, frame_idx=0, instances=[instance]))
    sio.save_ultralytics(sio.Labels(frames), name, split_ratios={'train': 0.5, 'val': 0.5}, verbose=False)
    with open(f'{name}/data.yaml') as file:
        written = yaml.safe_load(file)['flip_idx']
    right = list(skeleton.get_flipped_node_inds())
    print(f'{name}: flip_idx {written}, the skeleton itself {right}')
    same.append((written == list(range(len(nodes))), written == right))

# What a flipped image teaches: x becomes 1 - x, and the keypoints are taken in the order of flip_idx.
image = {'nose': 0.5, 'left_ear': 0.3, 'right_ear': 0.7}  # an animal that is seen from behind
for text, order in ('written', [0, 1, 2]), ('of the skeleton', [0, 2, 1]):
    flipped = [1 - list(image.values())[i] for i in order]
    print(f'flipped, flip_idx {text}:', {name: round(x, 1) for name, x in zip(image, flipped)})
sys.exit(same != [(True, False), (True, True), (True, False)])
P
"$python" -W ignore "$folder/try.py" "$folder"
