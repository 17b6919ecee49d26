#!/usr/bin/env bash
# opencv-python-headless 4.14.0.94 and 5.0.0.93, numpy 2.4.6.
# Good guess: bilinear warpAffine, warpPerspective and remap give the same pixels in a training and where its network
# serves, as resize does: bit for bit in both releases.
# What happens: 4.x rounds the position of each pixel to 1/32, 5.x rounds none. In an image of soft waves 13 % of the
# pixels of uint8 differ, by up to 2 levels of 255, in noise more than half; 4.x rounds for float32 as well.
# Who is hurt: whoever warps or crops images under one release and serves or compares under the other. A network for
# poses of several people found another number of them in one of 20 images; up to 8 % of the keypoints moved by a pixel
# or more, as last digits decide whose they are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'numpy==2.4.6'
for version in 4.14.0.94 5.0.0.93; do
  "$python" -m pip install -q --no-deps --target "$folder/$version" "opencv-python-headless==$version"
done
cat > "$folder/warp.py" <<'P'
import sys

import cv2
import numpy as np

print('OpenCV', cv2.__version__, 'numpy', np.__version__)
y, x = np.mgrid[:480, :640]
waves = 127.5 + 60 * np.sin(x / 3) + 60 * np.sin(y / 4 + x / 5)
noise = np.random.default_rng(0).integers(0, 256, (480, 640), np.uint8)
images = {'waves': np.round(waves).astype(np.uint8), 'noise': noise}
matrix = np.array([[0.37, 0, 3.2], [0, 0.41, -5.7]])
inverse = cv2.invertAffineTransform(matrix)
columns, lines = (inverse[i, i] * np.arange(side) + inverse[i, 2] for i, side in enumerate((256, 192)))
maps = [values.astype(np.float32) for values in np.meshgrid(columns, lines)]
results = {}
for name, image in images.items():
    results[f'{name}: resize'] = cv2.resize(image, (256, 192))
    results[f'{name}: warpAffine'] = cv2.warpAffine(image, matrix, (256, 192))
    results[f'{name}: warpPerspective'] = cv2.warpPerspective(image, np.vstack([matrix, [0, 0, 1]]), (256, 192))
    results[f'{name}: remap'] = cv2.remap(image, *maps, cv2.INTER_LINEAR)
# by definition, in float64, where all four neighbours are in the image
inside = np.ix_((lines >= 0) & (lines <= 479), (columns >= 0) & (columns <= 639))
rows = np.stack([np.interp(columns, np.arange(640), row) for row in waves.astype(np.float32)])
exact = np.stack([np.interp(lines, np.arange(480), column) for column in rows.T], 1)
found = cv2.warpAffine(waves.astype(np.float32), matrix, (256, 192))
results['float32: largest distance from the definition'] = np.abs(found - exact)[inside].max()
np.savez(sys.argv[1], **results)
P
for version in 4.14.0.94 5.0.0.93; do
  PYTHONPATH="$folder/$version" "$python" "$folder/warp.py" "$folder/$version.npz"
done
cat > "$folder/compare.py" <<'P'
import sys

import numpy as np

old, new = (np.load(file) for file in sys.argv[1:])
share, most = {}, {}
for name in old:
    if old[name].ndim:
        apart = np.abs(old[name].astype(int) - new[name])
        share[name], most[name] = (apart > 0).mean(), apart.max()
        print(f'{name}: {share[name]:.1%} of the pixels differ, by up to {most[name]} levels of 255')
    else:
        print(f'{name}: {old[name]:.4f} and {new[name]:.4f}')
        assert old[name] > 0.5 and new[name] < 0.01
for name in share:
    if name.endswith('resize'):
        assert most[name] == 0
    else:
        assert share[name] > (0.1 if name.startswith('waves') else 0.5) and most[name] >= 2
P
"$python" "$folder/compare.py" "$folder/4.14.0.94.npz" "$folder/5.0.0.93.npz"
