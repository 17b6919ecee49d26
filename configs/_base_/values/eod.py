# Anchors, box coder and pooling of EOD, which trained IC-Conv's detectors (icconv_mm/tasks/detection/heads.py).
eod_coder = dict(type='icconv_mm.EODBBoxCoder')
eod_rpn = dict(anchor_generator=dict(type='icconv_mm.EODAnchorGenerator'), bbox_coder=eod_coder)
eod_extractor = dict(type='icconv_mm.EODRoIExtractor', roi_layer=dict(sampling_ratio=2, aligned=False))
