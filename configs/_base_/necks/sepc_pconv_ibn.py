# PConv with integrated batch norm.
neck = dict(type='icconv_mm.SEPC', in_channels=256, out_channels=256, num_outs=5, ibn=True)
