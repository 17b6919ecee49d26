"""Upper limits for files and images from others: a larger one is refused before memory is allocated."""

MAX_METADATA_BYTES = 16 << 20  # metadata of a file
MAX_CLASSES = 100_000  # of a task; also the number of colours
MAX_NAME = 1000  # characters in the name of a class or a keypoint
MAX_FILE_NAME = 200  # bytes in the file name of a drawn image: file systems allow 255
MAX_TASK_NAME = 100  # bytes, as it becomes a part of file names
MAX_TASKS = 64
MAX_STEPS = 16  # preprocessing steps from an image to the input
MAX_LEVELS = 16  # scales of a network's inputs
MAX_SCALE = 64.0  # largest scale; the smallest is its inverse
MAX_SIDE = 32766  # pixels per side of a level or an input: mmpose, by OpenCV, warps to no larger one
MAX_LEVEL_PIXELS = 1 << 26  # of a level that a step computes, or of a fixed input
MAX_INPUT_PIXELS = 1 << 28  # of all images in a batch
MAX_IMAGE_BYTES = 1 << 30  # of an image file
MAX_IMAGE_PIXELS = 1 << 28  # of an image; OpenCV itself decodes up to four times as many
MAX_WEB_PIXELS = 1 << 26  # of an image in a browser, whose WebAssembly has 4 GB
MAX_WEB_MASK_PIXELS = 1 << 28  # of the parts of all masks that a browser keeps
MAX_BATCH = 1024  # images
MAX_THREADS = 1024
MAX_RUNS = 1_000_000  # of a benchmark
MAX_KERNEL = 63  # pixels per side of the square in which a keypoint has one peak
MAX_PEOPLE = 300  # peaks of a keypoint that may be people
MAX_KEYPOINTS = 300  # of a person
MAX_PEAKS = 10_000  # of all keypoints in an image
MAX_OBJECTS = 10_000  # predictions of a task in an image
MAX_MASK_PIXELS = 1 << 32  # of all masks in an image
MAX_LOGITS = 1 << 26  # kept at once; a row of an image has classes times its width
