# The form of the paper's tables with two pyramidal convolutions in every block; no weights were released.
backbone = dict(type='icconv_mm.PyConvResNet', depth=34, two_pyconvs=True)
weights = None  # so there is no 'pretrained' and no 'fine_tuned' to inherit
