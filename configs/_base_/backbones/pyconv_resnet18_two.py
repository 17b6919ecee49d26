# The form of the paper's tables with two pyramidal convolutions in every block; no weights were released.
backbone = dict(type='icconv_mm.PyConvResNet', depth=18, two_pyconvs=True)
weights = None
fine_tuned = dict(**backbone, frozen_stages=1, norm_eval=True, init_cfg=weights)
