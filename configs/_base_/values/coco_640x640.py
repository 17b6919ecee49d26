# Where COCO lies, and the maps of keypoints in images of 640 x 640 pixels.
data_root = 'data/coco/'
input_size = (640, 640)
codec = dict(type='icconv_mm.AECodec', input_size=input_size, heatmap_size=(160, 160), sigma=2)
