# SEPC-PConv with integrated batch norm: 'PConv + iBN' of the paper's tables.
neck = dict(type='icconv_mm.SEPC', in_channels=256, out_channels=256, num_outs=5, ibn=True)
