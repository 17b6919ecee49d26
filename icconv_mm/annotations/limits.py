"""How large what an annotation file holds may be: above it, it is refused before memory is asked for.

No published set comes near: sizes in the comments are those of the largest that we know of.
"""

JSON_BYTES = 16 << 30  # instances_train2017.json of COCO has 0.45 GB, LVIS 1.1 GB, Objects365 v2 about 6 GB
YAML_BYTES = 2 << 20  # the 1203 names of LVIS take 30 kB, those of all 21,841 classes of ImageNet 0.6 MB
YAML_NODES = 1_000_000  # values with aliases written out; the same ImageNet has 44,000
XML_BYTES = 4 << 30  # CVAT writes one file for a whole task; those of Pascal VOC have some kB
TEXT_BYTES = 1 << 30  # lists of images, text and CSV files; a list of the 9 million images of Open Images: 0.4 GB
IMAGE_BYTES = 1 << 30  # one image or map, before it is decoded; the largest of ADE20K have some 10 MB
IMAGE_PIXELS = 178_956_970  # Pillow's own limit; the largest of ADE20K and COCO have some 20 million
POLYGON_POINTS = 100_000  # of one polygon; the longest of COCO and LVIS have some thousand
KEYPOINTS = 1000  # of an object; whole bodies of COCO have 133, animals of DeepLabCut some dozen
PATH_LETTERS, PATH_PARTS = 4096, 64  # of a path in an annotation file; Linux opens none with more letters
NUMBER_LETTERS = 20  # of a whole number that names something, an id or a key: 64 bits
FOLDERS = 1_000_000  # below a place, those behind links as well; ImageNet has one for each of 21,841 classes
