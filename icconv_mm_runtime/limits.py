"""What is refused at which size: a file or an image of somebody else asks for no more memory than this."""

METADATA_BYTES = 16 << 20  # of what a file says of itself
CLASSES = 100_000  # of a task; as many colours
NAME = 1000  # letters of the name of a class or a keypoint
FILE_NAME = 200  # bytes of the name of a drawn image: file systems allow 255
TASK_NAME = 100  # bytes, as it is a part of the names of files
TASKS = 64
STEPS = 16  # from an image to the input
LEVELS = 16  # scales at which a network reads an image
SCALE = 64.0  # largest of them; the smallest is its inverse
SIDE = 32766  # pixels of a side of a level or an input: OpenCV warps to no larger one
LEVEL_PIXELS = 1 << 26  # of a level that a step makes, or of a fixed input
INPUT_PIXELS = 1 << 28  # of all images of a batch
IMAGE_BYTES = 1 << 30  # of the file of an image
IMAGE_PIXELS = 1 << 28  # of an image; OpenCV itself decodes none of more than four times as many
BATCH = 1024  # images
THREADS = 1024
KERNEL = 63  # pixels of the square in which a keypoint has one peak
PEOPLE = 300  # of the peaks of a keypoint that may be people
KEYPOINTS = 300  # of a person
PEAKS = 10_000  # of all keypoints of an image
OBJECTS = 10_000  # that a task finds in an image
MASK_PIXELS = 1 << 32  # of all masks of an image
LOGITS = 1 << 26  # that are kept at once; a row of an image has classes times its width
