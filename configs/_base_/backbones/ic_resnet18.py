# An analytic pattern that needs no download: halving channel counts of dilation 1, 2, 3, 4.
backbone = dict(type='icconv_mm.ICResNet', depth=18, pattern='geometric_d4')
weights = None  # so there is no 'pretrained' and no 'fine_tuned' to inherit
