# The miniature set of images of 128 x 128 pixels: where it is, its classes, the maps of keypoints and how it is read.
# Draw it with `python tools/make_miniature.py`.
data_root = 'data/miniature/'
metainfo = dict(
    classes=('person', 'ball', 'box', 'cone', 'star', 'ring'),
    palette=[(220, 20, 60), (0, 114, 189), (237, 177, 32), (126, 47, 142), (119, 172, 48), (77, 190, 238)],
)
semantic_metainfo = dict(classes=('background', *metainfo['classes']), palette=[(90, 90, 90), *metainfo['palette']])
input_size = (128, 128)
codec = dict(type='icconv_mm.AECodec', input_size=input_size, heatmap_size=(64, 64), sigma=1.5, detection_threshold=0.3)

train_dataloader = dict(
    batch_size=8, num_workers=2, persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True)
)
val_dataloader = dict(
    batch_size=8, num_workers=2, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False)
)
test_dataloader = val_dataloader
