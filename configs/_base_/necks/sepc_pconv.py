# SEPC-PConv, pyramid convolutions and a 3x3 convolution per branch: 'PConv' of the paper's tables.
neck = dict(type='icconv_mm.SEPC', in_channels=256, out_channels=256, num_outs=5)
