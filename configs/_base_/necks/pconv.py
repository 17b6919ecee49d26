# Pyramid convolutions alone, one map per level: for two-stage detectors.
neck = dict(type='icconv_mm.PConv', in_channels=256, out_channels=256, num_outs=5)
