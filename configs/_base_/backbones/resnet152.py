# The dense network (every dilation 1), with torchvision's ResNet-152 keys.
backbone = dict(type='icconv_mm.ICResNet', depth=152, pattern='dense')
