# mmdet's FPN on a bottleneck ResNet, with the extra level that region proposals use.
neck = dict(type='mmdet.FPN', in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5)
