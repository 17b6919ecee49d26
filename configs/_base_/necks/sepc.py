# SEPC: integrated batch norm, and every convolution deforms.
neck = dict(
    type='icconv_mm.SEPC',
    in_channels=256,
    out_channels=256,
    num_outs=5,
    pconv_deform=True,
    lcconv_deform=True,
    ibn=True,
)
