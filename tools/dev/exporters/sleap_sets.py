"""SLEAP: projects and packages of sleap-io, and what it writes for other programs."""

import os
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import ours
import sleap_io as sio

OUT = Path(sys.argv[1]).absolute()
PAIRS = [(ours.KEYPOINTS[a], ours.KEYPOINTS[b]) for a, b in ours.SKELETON]


def project(images):
    """Images of one size are a video of SLEAP."""
    skeleton = sio.Skeleton(list(ours.KEYPOINTS), list(PAIRS), [('left_ear', 'right_ear')], name='zebra')
    frames, videos = [], []
    for image in images:
        video = sio.Video.from_filename([image])
        instances = []
        for item in ours.objects_of(image, ours.POSES):
            points = np.array([(x, y) if v else (np.nan, np.nan) for x, y, v in zip(*[iter(item.keypoints)] * 3)])
            instance = sio.Instance.from_numpy(points, skeleton=skeleton)
            instance.points['visible'] = [v == 2 for v in item.keypoints[2::3]]
            instances.append(instance)
        if instances:
            frames.append(sio.LabeledFrame(video=video, frame_idx=0, instances=instances))
        videos.append(video)
    return sio.Labels(frames, videos=videos, skeletons=[skeleton])


def start(name):
    folder = OUT / name / 'data'
    folder.mkdir(parents=True)
    ours.draw(folder, some, ours.POSES)
    os.chdir(folder)
    return folder


some = ['one.png', 'two.png']
objects = [replace(item, name='animal', box=()) for item in ours.POSES]
unframed = 'has no boxes and no images without instances'
options = dict(images=some, classes=['animal'], keypoints=ours.KEYPOINTS, flips=[0, 2, 1])
more = dict(changes=[unframed], needs=['sleap_io'], **options)

folder = start('slp')
sio.save_slp(project(some), 'labels.slp')
ours.write_truth(folder.parent, objects, 'a project (.slp)', **more)

folder = start('package')
sio.save_slp(project(some), 'labels.pkg.slp', embed=True, verbose=False)
for path in some:
    os.remove(path)
renamed = {'one.png': '0_000000.png', 'two.png': '1_000000.png'}
objects = [replace(item, image=renamed[item.image]) for item in objects]
ours.SIZES |= {new: ours.SIZES[old] for old, new in renamed.items()}
ours.write_truth(folder.parent, objects, 'a package (.pkg.slp)', **more | dict(images=list(renamed.values())))

folder = start('coco')
sio.save_coco(project(some), 'annotations.json')
hidden = 'hidden keypoints are left out'


def without_hidden(item):
    triples = [(x, y, v) if v == 2 else (0, 0, 0) for x, y, v in zip(*[iter(item.keypoints)] * 3)]
    return replace(item, keypoints=sum(triples, ()))


poses = [without_hidden(item) for item in ours.POSES]
around = [replace(pose, box=()) for pose in poses]
boxes = 'boxes are those around the keypoints'
ours.write_truth(folder.parent, around, 'COCO', **options | dict(classes=['zebra'], flips=(), changes=[boxes, hidden]))

folder = start('ultralytics')
sio.save_ultralytics(project(some), str(folder), split_ratios={'train': 0.5, 'val': 0.5}, verbose=False)
frames = {}  # the split is random, and images are called by the number in their split
for path in sorted(folder.glob('*/images/*')):
    size = struct.unpack('>II', path.read_bytes()[16:24])
    (image,) = (name for name in some if ours.SIZES[name] == size)
    frames[image] = path.relative_to(folder).as_posix()
    os.remove(image)
ours.SIZES |= {new: ours.SIZES[old] for old, new in frames.items()}
objects = [replace(pose, name='animal', box=(), image=frames[pose.image]) for pose in poses]
splits = {name: name.split('/')[0] for name in frames.values()}
same = 'flip_idx swaps nothing, though the skeleton has symmetries'
more = options | dict(images=list(splits), splits=splits, changes=[hidden, same], decided=['flip_idx swaps nothing'])
ours.write_truth(folder.parent, objects, 'YOLO with keypoints', **more | dict(flips=()))
