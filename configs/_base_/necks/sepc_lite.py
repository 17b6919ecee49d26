# SEPC-lite: integrated batch norm, and only the last two convolutions deform.
neck = dict(type='icconv_mm.SEPC', in_channels=256, out_channels=256, num_outs=5, lcconv_deform=True, ibn=True)
