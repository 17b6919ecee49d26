# Labels of all tasks on one image, which is augmented once: `load` them, and `pack` what each library's heads take. A
# dataset that inherits it moves the image in between, and has a codec make the targets of poses in training.
load = dict(
    type='icconv_mm.LoadTaskAnnotations',
    instance=dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
    semantic=dict(type='mmseg.LoadAnnotations'),
)
pack = dict(
    type='icconv_mm.PackTaskInputs',
    instance=[dict(type='mmdet.PackDetInputs')],
    semantic=[dict(type='mmseg.PackSegInputs')],
    pose=[dict(type='icconv_mm.PackMultiScaleInputs')],
)
