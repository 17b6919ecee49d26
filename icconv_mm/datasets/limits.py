"""Upper limits for the content of annotation files: a larger one is refused before memory is allocated.

No published dataset comes near them: the comments give the sizes of the largest known ones.
"""

JSON_BYTES = 16 << 30  # instances_train2017.json of COCO has 0.45 GB, LVIS 1.1 GB, Objects365 v2 about 6 GB
YAML_BYTES = 2 << 20  # the 1203 names of LVIS take 30 kB, those of all 21,841 classes of ImageNet 0.6 MB
YAML_NODES = 1_000_000  # values with aliases expanded; the same ImageNet has 44,000
XML_BYTES = 4 << 30  # CVAT writes one file for a whole task; those of Pascal VOC have some kB
TEXT_BYTES = 1 << 30  # lists of images, text and CSV files; a list of the 9 million images of Open Images: 0.4 GB
IMAGE_BYTES = 1 << 30  # one image or segmentation map, before decoding; the largest of ADE20K have some 10 MB
IMAGE_PIXELS = 178_956_970  # Pillow's own limit; the largest of ADE20K and COCO have some 20 million
POLYGON_POINTS = 100_000  # of one polygon; the longest of COCO and LVIS have some thousand
KEYPOINTS = 1000  # of an object; whole bodies of COCO have 133, animals of DeepLabCut some dozen
PATH_LETTERS, PATH_PARTS = 4096, 64  # of a path in an annotation file; Linux opens no longer ones
NUMBER_LETTERS = 20  # of an integer id or key: 64 bits
FOLDERS = 1_000_000  # below a location, linked folders included; ImageNet has one for each of 21,841 classes
