# The form of the paper's tables with two pyramidal convolutions in every block; no weights were released.
backbone = dict(type='icconv_mm.PyConvResNet', depth=34, two_pyconvs=True)
weights = None
pretrained = dict(**backbone, init_cfg=weights)
fine_tuned = dict(**pretrained, frozen_stages=1, norm_eval=True)
