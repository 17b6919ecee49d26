# FPT on a bottleneck ResNet, GroupNorm throughout, with the extra level that region proposals use.
neck = dict(type='icconv_mm.FPT', in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5)
